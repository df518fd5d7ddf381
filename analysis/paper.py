"""The published numbers of the paper as the tables of a study.

python -m analysis.paper figures/paper      then analysis.figures and analysis.report,
                                            as for any study

The numbers are those of the authors' published training logs
(``transferability/reference/README.md``). The paper had 170 networks; the logs of 148 are
published, the other 22 have rows with state "missing".
"""

from analysis.command import command

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(command(__spec__.name, __doc__))


from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.tables import RESULTS, StudyResults, names
from transferability.study import cells
from transferability.tasks.splits import ALL, NATURAL_MANMADE, RANDOM

# ILSVRC 2012 has 50 validation images per class.
VAL_PER_CLASS = 50
CLASSES = {
    (RANDOM, "A"): 500,
    (RANDOM, "B"): 500,
    (NATURAL_MANMADE, "A"): 449,
    (NATURAL_MANMADE, "B"): 551,
}

# fine-tuned networks that the paper's analysis loads (splits 0 and 1: BnB+ for A, AnB+ in both
# directions)
FINE_TUNED = [
    (k, s, n, t)
    for k in (0, 1)
    for s, t in (("A", "A"), ("A", "B"), ("B", "A"))
    for n in range(1, 8)
]


@lru_cache(maxsize=1)
def published() -> StudyResults:
    """The 148 networks with published logs and the 22 without, as one study."""
    logs = pd.read_csv(files("transferability.reference") / "yosinski2014_runs.csv")
    rows = [_row(log) for log in logs.itertuples()]
    known = {(r["split"], r["cell"]) for r in rows}
    for k, source, n, target in FINE_TUNED:
        if (f"random-{k}", cell := f"{source}{n}{target}+") not in known:
            rows.append(
                _identity(
                    cells.parse(cell),
                    f"random-{k}",
                    RANDOM,
                    f"transfer-ft{k}{source}{k}{target}_1_{n}",
                )
            )
    about = {
        "title": "The published numbers of Yosinski et al. (2014)",
        "published": True,
        "statistic": "top1_mean_best10",
        "statistic_label": "mean of the 10 highest validation accuracies, as in the paper",
        "dataset": {"name": "ILSVRC 2012", "classes": 1000, "source": "the authors' training logs"},
        "network": {"name": "CaffeNet", "layers": 8, "input_size": 227},
        "recipe": {
            "name": "the paper's",
            "steps": 450_000,
            "batch_size": 256,
            "images": 450_000 * 256,
        },
        "device": ["Nvidia K20, 9.5 days a network (paper, section 4)"],
        "versions": ["Caffe, 2014"],
    }
    return StudyResults(about, pd.DataFrame(rows, columns=RESULTS))


def beside(tables: StudyResults) -> pd.DataFrame:
    """The published networks that figures compare with a study's at each n.

    Empty for the paper itself, and for networks of another depth, whose n are not comparable.
    """
    networks = published().networks
    if tables.is_paper or tables.layers != published().layers:
        return networks.iloc[:0]
    return networks


def _row(log) -> dict:
    """A row of results from a line of the logs' table."""
    kind = {"random-split": RANDOM, "natural-manmade": NATURAL_MANMADE}.get(log.experiment, ALL)
    if kind != ALL:
        cell, split = cells.parse(log.cell), log.split
    else:
        cell, split = cells.parse(f"{log.cell}all"), "all"
    return _identity(cell, split, kind, log.run) | {
        "images_per_class": log.images_per_class,
        "recipe": "paper, reduced volume" if log.experiment == "reduced-data" else "paper",
        "state": "done",
        "top1": log.top1_final,
        "top1_mean_best10": log.top1_mean_best10,
        "evaluations": log.evaluations,
        "images": log.iterations * 256,
    }


def _identity(cell: cells.Cell, split: str, kind: str, run: str) -> dict:
    classes = CLASSES.get((kind, cell.target), 1000)
    return {
        "dataset": "imagenet",
        "split": split,
        "split_kind": kind,
        "cell": str(cell),
        "treatment": cell.treatment,
        "source": cell.source,
        "target": cell.target,
        "n": cell.n,
        "copied": cell.copied,
        "frozen": cell.frozen,
        "seed": 0,
        "network": "caffenet",
        "recipe": "paper",
        "classes": classes,
        "val_images": classes * VAL_PER_CLASS,
        "run": run,
        "state": "missing",
        "in_study": True,
    }


def main(folder: Path) -> None:
    published().write(folder)
    results = published().results
    missing = results[results.state == "missing"]
    print(
        f"{folder}: {len(results) - len(missing)} networks with published logs, "
        f"{len(missing)} without:"
    )
    print(", ".join(names(missing)))
