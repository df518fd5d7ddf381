"""From the run store to the tables of a study: a row a network, and what the report shows besides.

python -m analysis.collect
python -m analysis.collect experiment=tiny_imagenet out=figures/tiny

The study says which networks there should be: those that are not finished have rows too, with state
"missing". What the folder has of networks whose weights are no longer in the store is kept, so a
study can grow where its weights are not.

Settings used most, the same as in training:
experiment=NAME    or study=NAME dataset=KIND ..., as for experiments.run
store=FOLDER       the run store (runs/)
out=FOLDER         where the tables go (figures/STUDY-DATASET)
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does without
    raise SystemExit(run_module(__spec__.name))

import math
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.measurements.predictors import predictors
from analysis.measurements.representations import activity, first_layer_filters, similarity
from analysis.statistics.baseline import BALANCED, balanced_accuracy, commonest
from analysis.tables import OPTIONAL, RESULTS, StudyResults, names, task_of
from analysis.use import use_of
from transferability.data.duplicates import describe
from transferability.data.near_duplicates import near_sentence
from transferability.data.packed import PackedDataset, dataset_of
from transferability.errors import UserError
from transferability.networks.sequential import profile_layers
from transferability.runs.store import Store
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec, pretrained_base_of
from transferability.tasks import wordnet
from transferability.tasks.splits import DISTANCE, NATURAL_MANMADE, split_kind, tasks_of

# What a finished network's row has beside what its spec says.
MEASURED = [
    "state",
    "top1",
    "top1_mean_best10",
    "evaluations",
    "val_loss",
    "train_loss",
    "images",
    "seconds",
    "test_top1",
    "top1_balanced",
    "test_balanced",
]


def collect(
    specs: list[RunSpec], store: Store, dataset: PackedDataset, earlier: StudyResults | None = None
) -> StudyResults:
    """The tables of the runs ``specs``, and of the runs they start from: those have ``in_study``
    False if not asked.

    ``earlier``: of these networks; what it has of runs that the store lacks is kept, and what is
    costly (similarity, activity) is only computed where it is new.
    """
    earlier = earlier or StudyResults({}, pd.DataFrame(columns=RESULTS))
    asked = {spec.run_id for spec in specs}
    every = with_bases(specs)
    val_images = {spec.classes: len(dataset.val_rows(list(spec.classes))) for spec in every}
    done = [s for s in every if store.is_done(s)]  # asked once: a study may be running
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
        _about(every, [store.provenance(s) for s in done], dataset),
        pd.DataFrame(rows, columns=[*RESULTS, *OPTIONAL]),
        pd.DataFrame(curves),
        first_layer_filters(every, store),
        similarity(every, store, dataset, known=earlier.similarity),
        activity(every, store, dataset, known=earlier.activity),
        predictors(every, dataset, known=earlier.predictors),
        predictions,
    )
    return _keep(tables, earlier)


def _keep(tables: StudyResults, earlier: StudyResults) -> StudyResults:
    """``tables`` with what ``earlier`` has of their runs and they lack,
    by id: one id, one result.
    """
    results = tables.results
    known = earlier.results[earlier.results.state == "done"].set_index("run")
    known = known.reindex(columns=MEASURED)  # of before there were test images
    kept = (results.state == "missing") & results.run.isin(known.index)
    if not kept.any():
        return tables
    results = results.astype({name: object for name in MEASURED})
    results.loc[kept, MEASURED] = known.loc[results.run[kept], MEASURED].to_numpy()
    results = results.infer_objects()

    def joined(name: str, runs: list[str], rows: list[str], of: pd.Series) -> pd.DataFrame:
        """The earlier rows of these runs that are in no new table, and the new ones."""
        old, new = getattr(earlier, name), getattr(tables, name)
        old = old[old[runs].isin(set(of)).all(axis=1)] if len(old) else old
        there = [table for table in (old, new) if len(table)]
        if not there:
            return new
        return pd.concat(there).drop_duplicates([*runs, *rows], keep="last", ignore_index=True)

    abouts = [tables.metadata, earlier.metadata]
    union = {
        name: sorted({value for about in abouts for value in about[name]})
        for name in ("device", "versions", "commit")
    }
    return StudyResults(
        tables.metadata
        | union
        | {"finished": max(filter(None, (about["finished"] for about in abouts)), default=None)},
        results,
        joined("curves", ["run"], ["step"], results.run[results.in_study]),
        _first_filters(results, tables.filters, earlier.filters),
        joined("similarity", ["run_a", "run_b"], ["pair", "layer"], results.run),
        joined("activity", ["run"], ["layer"], results.run),
        tables.predictors if len(tables.predictors) else earlier.predictors,
        _kept_predictions(results, earlier.predictions) | tables.predictions,
    )


def _first_filters(results: pd.DataFrame, new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """The table that shows the bases which :func:`first_layer_filters` would choose if all
    weights were there.
    """
    bases = results[(results.treatment == "base") & (results.state == "done")]
    if bases.empty:
        return new
    chosen = bases.groupby(["split", "seed"], sort=False).size().idxmax()
    for table in (new, old):
        if len(table) and (table.split.iloc[0], table.seed.iloc[0]) == chosen:
            return table
    return new


def means(networks: pd.DataFrame) -> str:
    """Mean accuracy of the study's networks by split, treatment and n, as text."""
    table = networks.pivot_table(index=["split", "treatment"], columns="n", values="accuracy")
    return table.to_string(float_format="%.3f", na_rep="")


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
    """See ``StudyResults.predictions``."""
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
    """From the classes of its source to its own, in WordNet; NaN where there is none."""
    if not isinstance(spec.source, RunSpec) or spec.source.classes == spec.classes:
        return math.nan
    return _between(dataset, spec.source.classes, spec.classes)


def _between(dataset: PackedDataset, a: Sequence[int], b: Sequence[int]) -> float:
    wnids_a, wnids_b = ([dataset.classes[i].wnid or "" for i in task] for task in (a, b))
    known = wordnet.knows([*wnids_a, *wnids_b])
    return wordnet.mean_distance(wnids_a, wnids_b) if known else math.nan


def _distances(dataset: PackedDataset) -> dict[str, float]:
    """How far apart the tasks of the paper's splits are, where the classes are WordNet's."""
    if not wordnet.knows([c.wnid for c in dataset.classes]):
        return {}
    tasks = {split: tasks_of(split, dataset) for split in ("random-0", NATURAL_MANMADE)}
    return {split: round(_between(dataset, t["A"], t["B"]), 3) for split, t in tasks.items()}


def _accuracy(predictions: dict[str, np.ndarray], spec: RunSpec) -> float:
    """On test images; NaN where there are none, or it is not known."""
    found = predictions.get(f"{spec.run_id} test")
    if found is None:
        return math.nan
    return float((found == predictions[f"{task_of(spec.classes)} test"]).mean())


def _balanced(predictions: dict[str, np.ndarray], spec: RunSpec, subset: str) -> float:
    """Balanced accuracy; NaN where there are no such images, or it is not known."""
    found = predictions.get(f"{spec.run_id} {subset}")
    if found is None:
        return math.nan
    return balanced_accuracy(found, predictions[f"{task_of(spec.classes)} {subset}"])


def _kept_predictions(
    results: pd.DataFrame, earlier: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Those of networks, and of tasks, that are in the study still."""
    whose = set(results.run) | set(results.task)
    return {key: found for key, found in earlier.items() if key.rpartition(" ")[0] in whose}


def _encoding(dataset: PackedDataset) -> dict[str, str]:
    """What figures and report say of images that are not as they were before packing."""
    quality = dataset.meta["settings"].get("jpeg_quality")
    return (
        {"encoding": f"JPEG-compressed pack (quality {quality}, 4:4:4)"} if dataset.encoding else {}
    )


def _duplicates(dataset: PackedDataset) -> dict[str, str]:
    """What the report says of equal pictures, and of those that nearly are."""
    found, near = (dataset.meta.get(key) for key in ("duplicates", "near_duplicates"))
    dropped = dataset.meta["settings"].get("duplicates") == "drop"
    how = "dropped" if dropped else "kept: copies flatter accuracy, or mislead it"
    said = [f"equal pictures: {describe(found, names=False)} ({how})"] if found else []
    if near:
        said.append(near_sentence(near, dataset.n_val + dataset.n_test))
    return {"duplicates": "; ".join(said)} if said else {}


def _about(specs: list[RunSpec], provenance: list[dict], dataset: PackedDataset) -> dict[str, Any]:
    """What was run, for the report; nothing in it depends on when it was collected."""
    # parts of a study may have their own
    whole = [spec for spec in specs if not spec.cell.short]
    whole = [spec for spec in whole if spec.images_per_class is None] or whole or specs
    usual = Counter(spec.recipe for spec in whole).most_common(1)[0][0]
    last = [spec for spec in whole if spec.recipe == usual][-1]
    network, recipe = asdict(last.network) | {"layers": last.network.n_layers}, asdict(last.recipe)
    own: dict[str, Any] = {}
    if any(split_kind(spec.split) == DISTANCE for spec in specs):
        own["distances"] = _distances(dataset)
    if base := pretrained_base_of(specs):
        costs = [layer.macs for layer in profile_layers(last.network)]
        own |= {"given": base.lines(), "layer_costs": costs}
    versions = {f"{name} {p[name]}" for p in provenance for name in ("torch", "numpy", "python")}
    encoding = _encoding(dataset)
    return {
        "title": ", ".join(
            [
                dataset.name,
                f"{network['name']} network",
                f"{recipe['name']} recipe",
                *encoding.values(),
            ]
        ),
        "statistic": "top1",
        "statistic_label": "top-1 on all validation images of the task at the end of training",
        "dataset": {
            "name": dataset.name,
            "classes": len(dataset.classes),
            "class_names": [c.name for c in dataset.classes],
            "training_images": dataset.n_train,
            "validation_images": dataset.n_val,
            "image_size": dataset.image_size,
            "checksum": dataset.checksum,
        }
        | ({"test_images": dataset.n_test} if dataset.n_test else {})
        | _duplicates(dataset)
        | encoding
        | ({"grammar": grammar} if (grammar := dataset.meta["settings"].get("grammar")) else {}),
        "network": network,
        **own,
        "recipe": recipe,
        "device": sorted({p["device"] for p in provenance}),
        "versions": sorted(versions),
        "commit": sorted({p["commit"] for p in provenance if p["commit"]}),
        "finished": max((p["finished"] for p in provenance), default=None),
    }


def collect_study(config: Config) -> tuple[Path, StudyResults, list[RunSpec]]:
    """Collect the study of the configuration into its folder, with what that has of it already.

    Returns: the folder, its tables, and every run of which they have a row.

    Raises:
        UserError: the networks were trained on all images; the folder is that of another study.
    """
    if config.all_images:
        raise UserError("all_images=true leaves no images to measure accuracy on: collect without")
    dataset = dataset_of(config.dataset)
    folder = Path(config.out or f"figures/{config.study.name}-{dataset.name}")
    whole = all((folder / name).exists() for name in ("results.csv", "about.json"))
    earlier = StudyResults.read(folder) if whole else None
    specs, store = study_specs(config, dataset), Store(config.store)
    tables = collect(specs, store, dataset, earlier)
    _say_choice(tables.metadata, config.study.choose_by)
    use = use_of(config, specs) if config.words else None
    if earlier and not any(map(store.is_done, specs)):  # all of them lie in another store
        use = earlier.metadata.get("use", use)
    if use:
        tables.metadata["use"] = use
    tables.write(folder)
    return folder, tables, with_bases(specs)


def _say_choice(about: dict[str, Any], choose_by: str) -> None:
    """What the best is chosen by, and what figures show."""
    about["choose_by"] = choose_by
    if choose_by == BALANCED:
        label = "balanced accuracy (the mean over classes) on all validation images of the task"
        about |= {
            "statistic": "top1_balanced",
            "statistic_label": f"{label} at the end of training",
        }


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
            f"\nMean top-1 accuracy over targets and seeds, against n:\n{means(tables.networks)}\n"
        )
    if found := commonest(tables):
        print(
            f"Always answering the commonest class of a task: {min(found):.3f} to {max(found):.3f}"
        )
    if len(missing):
        listed = names(missing)
        print(
            f"missing: {', '.join(listed[:12])}{' ...' if len(listed) > 12 else ''}",
            file=sys.stderr,
        )
