"""From the run store to one tidy table, a row a network.

python -m analysis.collect                      the study of the configuration, to figures/figures-procedural.csv
python -m analysis.collect dataset=tiny_imagenet recipe=tiny_imagenet out=PATH.csv

The study says which networks there should be: those that are not finished have rows too, with state "missing".
"""

import statistics
import sys
from pathlib import Path

import pandas as pd

from experiments.cli import command, dataset_of
from transferability.config import Config
from transferability.runner import with_sources
from transferability.spec import RunSpec
from transferability.splits import split_kind
from transferability.store import Store, write_atomic
from transferability.study import study_specs


def collect(specs: list[RunSpec], store: Store) -> pd.DataFrame:
    """A row a run of ``specs``, and of the runs they start from: those have ``in_study`` False if not asked for."""
    asked = {spec.run_id for spec in specs}
    return pd.DataFrame([_row(spec, store) | {"in_study": spec.run_id in asked} for spec in with_sources(specs)])


def means(table: pd.DataFrame) -> str:
    """Mean top-1 of the study's networks by split, treatment and n, as text."""
    rows = table[table.in_study]
    return rows.pivot_table(index=["split", "treatment"], columns="n", values="top1").to_string(
        float_format="%.3f", na_rep=""
    )


def _row(spec: RunSpec, store: Store) -> dict:
    row = {
        "dataset": spec.dataset["name"],
        "split": spec.split,
        "split_kind": split_kind(spec.split),
        "cell": str(spec.cell),
        "treatment": spec.cell.treatment,
        "source": spec.cell.source or "",
        "target": spec.cell.target,
        "n": spec.cell.n,
        "copied": spec.cell.copied,
        "frozen": spec.cell.frozen,
        "seed": spec.seed,
        "network": spec.network.name,
        "recipe": spec.recipe.name,
        "classes": len(spec.classes),
        "images_per_class": spec.images_per_class,
        "run": spec.run_id,
        "state": "done" if store.is_done(spec) else "missing",
    }
    if row["state"] == "done":
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


def main(config: Config) -> None:
    dataset, store = dataset_of(config), Store(config.store)
    table = collect(study_specs(config, dataset), store)
    path = Path(config.out or f"figures/{config.study.name}-{dataset.name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, table.to_csv(index=False, float_format="%.6f"))
    missing = table[table.state == "missing"]
    print(f"{path}: {len(table)} networks, {len(missing)} missing")
    if len(missing) < len(table):
        print(f"\nMean top-1 accuracy over targets and seeds, against n:\n{means(table)}\n")
    if len(missing):
        names = (missing.split + " " + missing.cell).tolist()
        print(f"missing: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}", file=sys.stderr)


if __name__ == "__main__":
    command(main)()
