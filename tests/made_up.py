"""Tables of finished networks whose numbers are made up."""

from itertools import product

import numpy as np
import pandas as pd

from analysis.tables import RESULTS, StudyResults

SPLITS = {"random-0": "random", "random-1": "random", "natural-manmade": "natural-manmade"}
COPIES = {
    "BnB": (0, 0.02),
    "BnB+": (0.02, 0),
    "AnB": (0, 0.3),
    "AnB+": (0.03, 0),
    "RnB": (0, 0.9),
}  # gain, loss at the top


def networks(layers: int, treatments=tuple(COPIES), splits=tuple(SPLITS), **values) -> list[dict]:
    """Finished networks of every n; ``values`` replace the usual ones."""
    rows, noise = [], np.random.default_rng(0)
    for split, target in product(splits, "AB"):
        source = {"B": target, "A": "AB".replace(target, ""), "R": "R"}
        usual = {
            "dataset": "made up",
            "split": split,
            "split_kind": SPLITS[split],
            "target": target,
            "seed": 0,
            "network": f"deep-{layers}",
            "recipe": "usual",
            "classes": 10,
            "val_images": 5000,
            "state": "done",
            "in_study": True,
            "images": 1000,
            "seconds": 1.0,
        }
        cells = [("base", 0, f"base{target}", 0.6)]
        for treatment, n in product(treatments, range(1, layers)):
            gain, loss = COPIES[treatment.split("~")[0]]
            cell = f"{source[treatment[0]]}{n}{target}{treatment[3:]}"
            cells.append((treatment, n, cell, 0.6 * (1 + gain - loss * n / (layers - 1))))
        for treatment, n, cell, top1 in cells:
            row = {
                "treatment": treatment,
                "n": n,
                "cell": cell,
                "top1": top1 + noise.normal(0, 0.005),
            }
            rows.append(dict.fromkeys(RESULTS) | usual | row | values)
    return rows


def row(
    cell,
    treatment,
    n,
    top1,
    target="B",
    split="random-0",
    kind="random",
    in_study=True,
    images_per_class=None,
):
    return dict.fromkeys(RESULTS) | {
        "dataset": "d",
        "split": split,
        "split_kind": kind,
        "cell": cell,
        "treatment": treatment,
        "target": target,
        "n": n,
        "seed": 0,
        "classes": 10,
        "images_per_class": images_per_class,
        "run": f"{split}-{cell}-{in_study}",
        "state": "done",
        "top1": top1,
        "in_study": in_study,
        "val_images": 100,
        "recipe": "r",
        "network": "small",
    }


def tables_of(*rows: dict, layers: int = 8, **others: pd.DataFrame) -> StudyResults:
    """Tables with these rows of results; ``others``: curves, filters, ..."""
    results = pd.DataFrame(rows, columns=RESULTS)
    results = results.assign(
        run=[f"run-{i}" for i in results.index],
        images_per_class=results.images_per_class.astype(float),
    )
    about = {
        "title": f"A network of {layers} layers",
        "statistic": "top1",
        "statistic_label": "top-1",
        "dataset": {"name": "made up", "classes": 20},
        "network": {"name": f"deep-{layers}", "layers": layers},
        "recipe": {"name": "usual", "steps": 100, "batch_size": 10},
        "device": ["none"],
        "versions": ["none"],
    }
    return StudyResults(about, results, **others)
