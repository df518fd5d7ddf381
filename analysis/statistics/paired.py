"""Two networks on the same images: whether they differ, and in which classes.

The predictions of every finished network are kept (``StudyResults.predictions``). Only images that
exactly one of the networks predicts correctly are informative about their difference.
"""

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.linear_model import BLOCK
from analysis.statistics.over_images import tango
from analysis.tables import StudyResults

COMPARED = ("AnB+", "AnB")  # treatments that are compared with the base at their highest n


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The exact two-sided p-value that two networks are equally accurate (McNemar 1947).

    Args:
        first, second: the correct predictions of each network, (images,) bool.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    either = only_first + only_second
    return float(stats.binomtest(only_first, either, 0.5).pvalue) if either else 1.0


def by_class(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, confidence: float = 0.95
) -> pd.DataFrame:
    """The accuracy of the first network minus that of the second, per class.

    Args:
        first, second: the correct predictions of each network, (images,) bool.
        labels: the labels of the images, (images,).

    Returns:
        A row per class: label, images, first, second (accuracies), difference, low, high. The
        intervals are Tango's (1998), as few images would give too narrow normal ones, and
        simultaneous (Bonferroni).
    """
    rows = []
    classes = np.unique(labels)
    each = 1 - (1 - confidence) / len(classes)
    for label in classes:
        a, b = first[labels == label], second[labels == label]
        interval = tango(float((a & ~b).sum()), float((b & ~a).sum()), len(a), each)
        rows.append((label, len(a), a.mean(), b.mean(), a.mean() - b.mean(), *interval))
    columns = ["label", "images", "first", "second", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def class_changes(tables: StudyResults, most: int = 5) -> pd.DataFrame:
    """The classes that gain and lose most by transfer: AnB+ and AnB at their highest n against the
    base, per task and seed; empty if predictions were not kept.
    """
    networks = tables.networks
    if "right" not in networks:
        return pd.DataFrame()
    known, found = networks[networks.right.notna()], []
    for _, own in known.groupby(BLOCK, dropna=False, sort=False):
        bases = own[own.treatment == "base"]
        for treatment in COMPARED if len(bases) else ():
            chosen = own[own.treatment == treatment].sort_values("n", kind="stable")
            if len(chosen):
                found.append(_changes(tables, chosen.iloc[-1], bases.iloc[0], most))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _changes(tables: StudyResults, network: pd.Series, base: pd.Series, most: int) -> pd.DataFrame:
    labels = tables.predictions[f"{network.task} validation"]
    rows = by_class(network.right, base.right, labels).sort_values(
        "difference", ascending=False, kind="stable"
    )
    chosen = rows if len(rows) <= 2 * most else pd.concat([rows[:most], rows[-most:]])
    names = tables.metadata["dataset"]["class_names"]
    classes = tables.predictions[f"{network.task} classes"]
    return pd.DataFrame(
        {
            "network": f"{network.split} {network.cell} seed {network.seed}",
            "p": mcnemar(network.right, base.right),
            "class": [names[classes[label]] for label in chosen.label],
            "images": chosen.images,
            "accuracy": chosen["first"],
            "of the base": chosen.second,
            "difference": chosen.difference,
            "low": chosen.low,
            "high": chosen.high,
        }
    )
