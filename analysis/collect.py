"""Collect the tables of a study from the run store: one row per network, and what else the report
shows.

python -m analysis.collect
python -m analysis.collect experiment=tiny_imagenet out=figures/tiny

Every network of the study has a row, also unfinished ones (state "missing").
Rows of networks whose weights are no longer in the store are kept, so the tables can grow in a
place that does not have all weights.

Settings used most, the same as in training:
experiment=NAME    or study=NAME dataset=KIND ..., as for experiments.run
store=FOLDER       the run store (runs/)
out=FOLDER         where the tables go (figures/STUDY-DATASET)
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.earlier import keep_earlier
from analysis.measurements.filters import first_layer_filters
from analysis.measurements.predictors import predictors
from analysis.measurements.representations import activity, similarity
from analysis.metadata import add_choice, study_metadata, task_distance
from analysis.statistics.baseline import balanced_accuracy, commonest
from analysis.tables import OPTIONAL, RESULTS, StudyResults, names, task_of, varied_in
from analysis.use import use_of
from transferability.console import pluralize
from transferability.data.packed import PackedDataset, dataset_of
from transferability.errors import UserError, and_more
from transferability.runs.store import Store
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec
from transferability.tasks.splits import split_kind


def collect(
    specs: list[RunSpec], store: Store, dataset: PackedDataset, earlier: StudyResults | None = None
) -> StudyResults:
    """The tables of the runs ``specs`` and of their bases; ``in_study`` is False for bases that are
    not in ``specs``.

    Args:
        earlier: tables of these networks. Results of runs that the store lacks are kept, and
            similarity, activity and predictors are computed only where missing.
    """
    earlier = earlier or StudyResults({}, pd.DataFrame(columns=RESULTS))
    asked = {spec.run_id for spec in specs}
    every = with_bases(specs)
    val_images = {spec.classes: len(dataset.val_rows(list(spec.classes))) for spec in every}
    done = [s for s in every if store.is_done(s)]  # checked once: the study may be training
    ended = {s.run_id for s in done}
    predictions = _predictions(done, store, dataset)
    rows = [
        _row(s, store, s.run_id in ended)
        | {"val_images": val_images[s.classes], "in_study": s.run_id in asked}
        | {"test_top1": _accuracy(predictions, s), "distance": _distance(s, dataset)}
        | {
            "top1_balanced": _balanced(predictions, s, "validation"),
            "test_balanced": _balanced(predictions, s, "test"),
        }
        for s in every
    ]
    curves = [
        {"run": s.run_id, **evaluation}
        for s in done
        if s.run_id in asked
        for evaluation in store.metrics(s)
    ]
    tables = StudyResults(
        study_metadata(every, [store.provenance(s) for s in done], dataset),
        pd.DataFrame(rows, columns=[*RESULTS, *OPTIONAL]),
        pd.DataFrame(curves),
        first_layer_filters(every, store),
        similarity(every, store, dataset, known=_on_the_same_images(earlier, every)),
        activity(every, store, dataset, known=earlier.activity),
        predictors(every, dataset, known=earlier.predictors),
        predictions,
    )
    return keep_earlier(tables, earlier)


def _on_the_same_images(earlier: StudyResults, specs: list[RunSpec]) -> pd.DataFrame:
    """The earlier similarities of splits that still have the same tasks: the images are drawn from
    all of them.
    """
    found = earlier.similarity
    if found.empty or earlier.without_tasks:
        return found
    before = set(zip(earlier.results.split, earlier.results.task, strict=True))
    changed = before ^ {(spec.split, task_of(spec.classes)) for spec in specs}
    return found[~found.split.isin([split for split, _ in changed])]


def means(networks: pd.DataFrame) -> str:
    """Mean accuracy by split, treatment, n and the other settings that vary, as text."""
    varied = varied_in(networks)
    rows = networks
    if "images_per_class" in varied:
        images = rows.images_per_class.map("{:.0f}".format)
        rows = rows.assign(images_per_class=images.where(rows.images_per_class.notna(), "all"))
    table = rows.pivot_table(
        index=["split", "treatment", *varied], columns="n", values="accuracy", sort=not varied
    )
    return table.sort_index(axis=1).to_string(float_format="%.3f", na_rep="")


def _row(spec: RunSpec, store: Store, done: bool) -> dict[str, Any]:
    row = {
        "dataset": spec.dataset.name,
        "split": spec.split,
        "split_kind": split_kind(spec.split),
        "cell": str(spec.cell),
        "treatment": spec.cell.treatment,
        "source": spec.cell.source or "",
        "target": spec.cell.target,
        "task": task_of(spec.classes),
        "n": spec.cell.n,
        "copied": spec.cell.copied,
        "frozen": spec.cell.frozen,
        "seed": spec.seed,
        "network": spec.network.name,
        "recipe": spec.recipe.name,
        "classes": len(spec.classes),
        "images_per_class": spec.images_per_class,
        "run": spec.run_id,
        "state": "done" if done else "missing",
    }
    if done:
        metrics, provenance = store.metrics(spec), store.provenance(spec)
        best = sorted((m["val_top1"] for m in metrics), reverse=True)[:10]
        last = metrics[-1]
        row |= {
            "top1": last["val_top1"],  # the final evaluation
            "top1_mean_best10": statistics.fmean(best),  # the paper's statistic
            "evaluations": len(metrics),
            "val_loss": last["val_loss"],
            "train_loss": last["train_loss"],
            "images": provenance["images"],
            "seconds": provenance["seconds"],
        }
    return row


def _predictions(
    specs: list[RunSpec], store: Store, dataset: PackedDataset
) -> dict[str, np.ndarray]:
    """Predictions and labels in the format of ``StudyResults.predictions``."""
    found = {}
    for spec in specs:
        rows_of = {"validation": dataset.val_rows, "test": dataset.test_rows}
        for subset, labels in (store.predictions(spec) or {}).items():
            found[f"{spec.run_id} {subset}"] = labels.numpy()
            rows = dataset.labels[rows_of[subset](list(spec.classes))]
            right = np.searchsorted(spec.classes, rows)
            found[f"{task_of(spec.classes)} {subset}"] = right.astype(np.int16)
            found[f"{task_of(spec.classes)} classes"] = np.array(spec.classes, np.int16)
    return found


def _distance(spec: RunSpec, dataset: PackedDataset) -> float:
    """The WordNet distance between the classes of the source and of the run; NaN if undefined."""
    if not isinstance(spec.source, RunSpec) or spec.source.classes == spec.classes:
        return math.nan
    return task_distance(dataset, spec.source.classes, spec.classes)


def _accuracy(predictions: dict[str, np.ndarray], spec: RunSpec) -> float:
    """Accuracy on test images; NaN without test images or predictions."""
    found = predictions.get(f"{spec.run_id} test")
    if found is None:
        return math.nan
    return float((found == predictions[f"{task_of(spec.classes)} test"]).mean())


def _balanced(predictions: dict[str, np.ndarray], spec: RunSpec, subset: str) -> float:
    """Balanced accuracy on ``subset``; NaN without such images or predictions."""
    found = predictions.get(f"{spec.run_id} {subset}")
    if found is None:
        return math.nan
    return balanced_accuracy(found, predictions[f"{task_of(spec.classes)} {subset}"])


def collect_study(config: Config) -> tuple[Path, StudyResults, list[RunSpec]]:
    """Collect the study of the configuration into its folder; results that only the folder has are
    kept.

    Returns:
        The folder, its tables, and every run that has a row in them.

    Raises:
        UserError: the networks were trained on all images; the folder is that of another study, or
            has finished networks that neither this study nor the store has.
    """
    if config.all_images:
        raise UserError("all_images=true leaves no images to measure accuracy on: collect without")
    dataset = dataset_of(config.dataset)
    folder = Path(config.out or f"figures/{config.study.name}-{dataset.name}")
    whole = all((folder / name).exists() for name in ("results.csv", "about.json"))
    earlier = StudyResults.read(folder) if whole else None
    specs, store = study_specs(config, dataset), Store(config.store)
    if earlier and (lost := _nowhere_else(earlier, specs, store)):  # before the measurements
        raise UserError(
            f"{folder} has {pluralize(len(lost), 'finished network')} that this study does not "
            f"have, nor the store {store.root} ({lost[0]}{and_more(lost)}): nothing is "
            "overwritten; set out= to another folder, or collect with the settings of both"
        )
    tables = collect(specs, store, dataset, earlier)
    add_choice(tables.metadata, config.study.choose_by)
    use = use_of(config, specs) if config.words else None
    if earlier and not any(map(store.is_done, specs)):  # all runs are in another store
        use = earlier.metadata.get("use", use)
    if use:
        tables.metadata["use"] = use
    tables.write(folder)
    return folder, tables, with_bases(specs)


def _nowhere_else(earlier: StudyResults, specs: list[RunSpec], store: Store) -> list[str]:
    """Finished runs that only the earlier tables have."""
    ours = {spec.run_id for spec in with_bases(specs)}
    done = earlier.results.run[earlier.results.state == "done"]
    gone = done[~done.isin(ours)]
    return [run for run in gone if not (store.root / run / "DONE").exists()]


def main(config: Config) -> None:
    folder, tables, specs = collect_study(config)
    store, table = Store(config.store), tables.results
    missing = table[table.state == "missing"]
    print(f"{folder}/results.csv: {len(table)} networks, {len(missing)} missing")
    ended = set(table.run[table.state == "done"])
    if kept := sum(s.run_id in ended and not store.is_done(s) for s in specs):
        print(f"{kept} of them are not in the store {config.store}: kept as {folder} had them")
    if len(missing) < len(table):
        print(
            f"\nMean {tables.measure} accuracy over targets and seeds, against n:\n"
            f"{means(tables.networks)}\n"
        )
    if found := commonest(tables):
        print(
            "Always predicting the most frequent class of a task: "
            f"{min(found):.3f} to {max(found):.3f}"
        )
    if len(missing):
        listed = names(missing, table)
        print(
            f"missing: {', '.join(listed[:12])}{' ...' if len(listed) > 12 else ''}",
            file=sys.stderr,
        )
