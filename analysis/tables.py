"""The tables of one study: a folder of CSV files and ``about.json``, all that figures,
claims and the report read.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from analysis.csv_files import _WAY_BACK, read_csv, write_csv
from analysis.table_values import checked
from transferability.errors import UserError
from transferability.files import replacing, write_atomic
from transferability.tasks.splits import PRETRAINED

# A row per network. The published numbers of the paper have the same columns (analysis/paper.py).
RESULTS = [
    "dataset",
    "split",
    "split_kind",  # random, natural-manmade, user, all
    "cell",
    "treatment",  # base, BnB, BnB+, AnB, AnB+, RnB, AnB~1 ...
    "source",
    "target",
    "task",  # the classes of the target task: what a network is of, whatever its split is called
    "n",
    "copied",
    "frozen",
    "seed",
    "network",
    "recipe",
    "classes",
    "images_per_class",  # empty: all
    "val_images",
    "run",
    "state",  # done, missing
    "top1",  # of the final evaluation
    "top1_mean_best10",  # the paper's statistic: the mean of the ten highest evaluations
    "evaluations",
    "val_loss",
    "train_loss",
    "images",  # training images seen
    "seconds",  # this network's share of its cohort's time
    "in_study",  # False: only lends its layers to a network of the study
]
OPTIONAL = [  # where there is one
    "test_top1",  # on test images
    "top1_balanced",  # mean over classes of the share of its validation images that is right
    "test_balanced",  # of its test images
    "distance",  # mean path distance in WordNet between the classes of source and target
]
VARIANT = ["network", "recipe"]  # labels of what a study may vary
# tables that a study may have beside its results
OTHERS = ("curves", "filters", "similarity", "activity", "predictors")
PREDICTIONS = "predictions.safetensors"


def split_and_target(networks: pd.DataFrame) -> pd.Series:
    """What a task is called where its classes are not known."""
    return networks.split.astype(str) + " " + networks.target


@dataclass
class StudyResults:
    """What is known of one study.

    Attributes:
        metadata: what was run, in words and numbers; ``statistic`` names the column that figures
            show.
        results: a row per network, columns RESULTS, and those of OPTIONAL that it has.
        curves: a row per evaluation of a network (run, step, lr, train_loss, val_loss, val_top1).
        filters: a row per pixel of a filter of layer 1: ``representations.first_layer_filters``.
        similarity: a row per layer of a pair of networks, see ``representations.similarity``.
        activity: a row per layer of a network, see ``representations.activity``.
        predictors: a row per predictor and layer of a pretrained base, see
        ``predictors.predictors``. predictions: what each network takes the images of its task for,
        and what they are:
            ``RUN validation``, ``RUN test``, ``TASK validation`` ... -> (images,) int16, and
            ``TASK classes``, which of the dataset they are; empty for networks that were trained
            before these were kept.
    """

    metadata: dict[str, Any]
    results: pd.DataFrame
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    filters: pd.DataFrame = field(default_factory=pd.DataFrame)
    similarity: pd.DataFrame = field(default_factory=pd.DataFrame)
    activity: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictors: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    without_tasks: bool = field(init=False)

    def __post_init__(self) -> None:
        """Of tables that do not say the classes (the paper's, and older ones)
        a task is its split and target.
        """
        known = self.results.reindex(columns=["task"]).task.astype(object)
        self.without_tasks = bool(known.isna().any())
        self.results = self.results.assign(task=known.fillna(split_and_target(self.results)))

    def write(self, folder: Path) -> None:
        """Write the folder.

        Raises:
            UserError: the folder has more finished networks,
                so those of another study: nothing is overwritten.
        """
        finished = int((self.results.state == "done").sum())
        if (folder / "results.csv").exists() and (known := _finished(folder)) > finished:
            raise UserError(
                f"{folder}/results.csv has {known} finished networks, this study {finished}: "
                "nothing is overwritten; draw what is there with `python -m analysis.report`, or "
                "choose another folder"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the folder {folder} cannot be made: {error.strerror}; choose another one"
            ) from error
        known = self.results.reindex(columns=OPTIONAL).notna().any()
        write_csv(folder / "results.csv", self.results[[*RESULTS, *known.index[known]]])
        if self.predictions:
            with replacing(folder / PREDICTIONS) as temporary:
                save_file(self.predictions, temporary)
        for name in OTHERS:
            if len(table := getattr(self, name)):
                write_csv(folder / f"{name}.csv", table)
            else:
                (folder / f"{name}.csv").unlink(missing_ok=True)
        write_atomic(
            folder / "about.json", json.dumps(self.metadata, indent=1, ensure_ascii=False) + "\n"
        )

    @classmethod
    def read(cls, folder: Path) -> "StudyResults":
        """The tables in ``folder``.

        Raises:
            UserError: there are none, or they are not of this format.
        """
        try:
            about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            results = read_csv(folder / "results.csv")
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} does not exist: run `python -m analysis.collect` first"
            ) from None
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{folder}/about.json is damaged ({error}): {_WAY_BACK}") from None
        if absent := [c for c in RESULTS if c not in results and c != "task"]:
            raise UserError(f"{folder}/results.csv lacks the column {absent[0]!r}: {_WAY_BACK}")
        results = checked(results, folder / "results.csv")
        others = {
            n: read_csv(folder / f"{n}.csv") for n in OTHERS if (folder / f"{n}.csv").exists()
        }
        path = folder / PREDICTIONS
        return cls(about, results, **others, predictions=load_file(path) if path.exists() else {})

    @property
    def is_paper(self) -> bool:
        """Whether these are the paper's published numbers themselves."""
        return self.metadata.get("published", False)

    @property
    def layers(self) -> int:
        """How many layers the study's networks have;
        tables of before, which do not say, are of the 8-layer family.
        """
        return self.metadata["network"].get("layers", 8)

    @property
    def dataset(self) -> str:
        return self.metadata["dataset"]["name"]

    @property
    def networks(self) -> pd.DataFrame:
        """The study's own networks, finished or missing, with the shown statistic as ``accuracy``;
        where predictions were kept also whether each validation image is predicted right, as
        ``right``: (images,) bool, or None.
        """
        own = self.results[self.results.in_study]
        own = own.assign(accuracy=own[self.metadata["statistic"]])
        if not self.predictions or self.metadata["statistic"] not in ("top1", "top1_balanced"):
            return own
        pairs = zip(own.run, own.task, strict=True)
        return own.assign(right=[self.correct(run, task) for run, task in pairs])

    def correct(self, run: str, task: str, subset: str = "validation") -> np.ndarray | None:
        """Whether a network takes each image of a subset for what it is, (images,) bool; None where
        its predictions were not kept.
        """
        predicted = self.predictions.get(f"{run} {subset}")
        return None if predicted is None else predicted == self.predictions[f"{task} {subset}"]


def task_of(classes: tuple[int, ...]) -> str:
    """What a task is in the tables: how many classes it has, and a digest of which."""
    return f"{len(classes)} classes, {hashlib.sha256(repr(classes).encode()).hexdigest()[:12]}"


def names(table: pd.DataFrame, among: pd.DataFrame | None = None) -> list[str]:
    """How a person names networks: ``random-0 A3B+``, with the seed, network, recipe and number of
    images where there are several ``among`` these (without: in the table itself).
    """
    among = table if among is None else among
    varied = varied_in(among)
    seeds = among.seed.nunique() > 1
    images = "images_per_class" in varied
    labels = [name for name in VARIANT if name in varied]
    return [
        f"{row.split} {row.cell}"
        + (f" seed {row.seed}" if seeds else "")
        + (
            f" {row.images_per_class:.0f} images per class"
            if images and row.images_per_class > 0
            else ""
        )
        + (f" ({', '.join(getattr(row, name) for name in labels)})" if labels else "")
        for row in table.itertuples()
    ]


def kinds(networks: pd.DataFrame) -> pd.Series:
    """What tells kinds of network apart, a text a row: the label of the network,
    of the recipe, or both.
    """
    pairs = networks[VARIANT].drop_duplicates()
    enough = [[column] for column in VARIANT if len(pairs) > 1 and pairs[column].is_unique]
    return networks[enough[0] if enough else VARIANT].agg(", ".join, axis=1)


def varied_in(networks: pd.DataFrame) -> list[str]:
    """The columns of what a study may vary, beside treatment and n, in which these differ."""
    columns = (*VARIANT, "images_per_class")
    return [column for column in columns if networks[column].nunique(dropna=False) > 1]


def mixed(networks: pd.DataFrame) -> str | None:
    """Why a mean over the networks of a treatment would mix what a study varies;
    None where it does not.
    """
    treated = networks[networks.treatment != "base"]
    if not (varied := varied_in(treated)):
        return None
    pretrained = (treated.split_kind == PRETRAINED).all()
    shown_by = "the figure `advice`" if pretrained else "`make question`"
    return f"the networks differ in {' and '.join(varied)}: {shown_by} compares them"


def _finished(folder: Path) -> int:
    table = read_csv(folder / "results.csv")
    return int((table.state == "done").sum()) if "state" in table else 0
