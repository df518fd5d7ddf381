"""The tables of one study: a folder of CSV files and ``about.json``, the only input of figures,
claims and the report.
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
    "task",  # identifies the classes of the target task, independent of the name of the split
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
    "in_study",  # False: only a base of networks of the study
]
OPTIONAL = [  # written only if any network has a value
    "test_top1",  # on test images
    "top1_balanced",  # mean over classes of the accuracy on their validation images
    "test_balanced",  # the same on test images
    "distance",  # mean path distance in WordNet between the classes of source and target
]
VARIANT = ["network", "recipe"]  # labels of what a study may vary
# tables that a study may have besides its results
OTHERS = ("curves", "filters", "similarity", "activity", "predictors")
PREDICTIONS = "predictions.safetensors"


def split_and_target(networks: pd.DataFrame) -> pd.Series:
    """The names of tasks whose classes are unknown."""
    return networks.split.astype(str) + " " + networks.target


@dataclass
class StudyResults:
    """The results of one study.

    Attributes:
        metadata: settings of the study; ``statistic`` is the column that figures show.
        results: a row per network, with the columns RESULTS and those of OPTIONAL that are known.
        curves: a row per evaluation of a network (run, step, lr, train_loss, val_loss, val_top1).
        filters: a row per pixel of a filter of layer 1: ``filters.first_layer_filters``.
        similarity: a row per layer of a pair of networks, see ``representations.similarity``.
        activity: a row per layer of a network, see ``representations.activity``.
        predictors: a row per predictor and layer of a pretrained base, see
            ``predictors.predictors``.
        predictions: predicted classes (``RUN validation``, ``RUN test``) and labels (``TASK
            validation``, ``TASK test``), (images,) int16, as positions in ``TASK classes``, the
            classes of the task in the dataset. Networks trained before predictions were kept have
            none.
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
        """In tables without classes (the paper's, and older ones), split and target name a task."""
        known = self.results.reindex(columns=["task"]).task.astype(object)
        self.without_tasks = bool(known.isna().any())
        self.results = self.results.assign(task=known.fillna(split_and_target(self.results)))

    def write(self, folder: Path) -> None:
        """Write the folder.

        Raises:
            UserError: the folder has more finished networks, which must be those of another study,
                or it cannot be made. Nothing is overwritten.
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
            UserError: the tables are missing, damaged or of another format.
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
        results = checked(results, folder / "results.csv", [*RESULTS, *OPTIONAL])
        others = {
            n: read_csv(folder / f"{n}.csv") for n in OTHERS if (folder / f"{n}.csv").exists()
        }
        path = folder / PREDICTIONS
        return cls(about, results, **others, predictions=load_file(path) if path.exists() else {})

    @property
    def is_paper(self) -> bool:
        """Whether the tables are the published numbers of the paper."""
        return self.metadata.get("published", False)

    @property
    def layers(self) -> int:
        """The number of layers of the study's networks; 8 for older tables, which lack it."""
        return self.metadata["network"].get("layers", 8)

    @property
    def dataset(self) -> str:
        return self.metadata["dataset"]["name"]

    @property
    def measure(self) -> str:
        """The kind of accuracy that figures show: top-1, or balanced (the mean over classes)."""
        return "balanced" if self.metadata["statistic"] == "top1_balanced" else "top-1"

    @property
    def networks(self) -> pd.DataFrame:
        """The study's networks, finished or missing, with the statistic of figures as ``accuracy``.

        If predictions were kept and the statistic is top-1 or balanced accuracy, ``right`` is
        whether each validation image is predicted correctly, (images,) bool, or None. Of balanced
        accuracy, ``weights`` has the weight of each image.
        """
        own = self.results[self.results.in_study]
        own = own.assign(accuracy=own[self.metadata["statistic"]])
        if not self.predictions or self.metadata["statistic"] not in ("top1", "top1_balanced"):
            return own
        pairs = zip(own.run, own.task, strict=True)
        own = own.assign(right=[self.correct(run, task) for run, task in pairs])
        if self.metadata["statistic"] == "top1":
            return own
        known = {task: self.predictions.get(f"{task} validation") for task in set(own.task)}
        weights = {task: balancing(labels) for task, labels in known.items() if labels is not None}
        return own.assign(weights=own.task.map(weights))

    def correct(self, run: str, task: str, subset: str = "validation") -> np.ndarray | None:
        """Whether a network predicts each image of a subset correctly, (images,) bool; None if its
        predictions were not kept.
        """
        predicted = self.predictions.get(f"{run} {subset}")
        return None if predicted is None else predicted == self.predictions[f"{task} {subset}"]


def balancing(labels: np.ndarray) -> np.ndarray:
    """Weights of images, (images,), with which the mean of correct predictions is the balanced
    accuracy.
    """
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[which])


def task_of(classes: tuple[int, ...]) -> str:
    """The identifier of a task in the tables: the number of its classes, and their digest."""
    return f"{len(classes)} classes, {hashlib.sha256(repr(classes).encode()).hexdigest()[:12]}"


def names(table: pd.DataFrame, among: pd.DataFrame | None = None) -> list[str]:
    """Names of networks for people: ``random-0 A3B+``, with the seed, images per class, network and
    recipe if these vary in ``among`` (default: ``table``).
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
    """The label per row that distinguishes kinds of network: the network, the recipe, or both."""
    pairs = networks[VARIANT].drop_duplicates()
    enough = [[column] for column in VARIANT if len(pairs) > 1 and pairs[column].is_unique]
    return networks[enough[0] if enough else VARIANT].agg(", ".join, axis=1)


def varied_in(networks: pd.DataFrame) -> list[str]:
    """The columns that vary over ``networks``: of network, recipe and images per class."""
    columns = (*VARIANT, "images_per_class")
    return [column for column in columns if networks[column].nunique(dropna=False) > 1]


def mixed(networks: pd.DataFrame) -> str | None:
    """The reason why a mean over the networks of a treatment would mix settings that vary; None if
    it would not.
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
