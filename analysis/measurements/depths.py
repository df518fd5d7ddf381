"""Transferability metrics at every depth, compared with linear probes on the same features.

k nearest neighbors, LogME and the regularized H-score (``predictors.py``) of the stored pooled
features of the probes, and their agreement with the probes.
"""

import numpy as np
import pandas as pd

from analysis.measurements.predictors import IMAGES, h_score, knn, logme
from analysis.statistics.intervals import rank_correlation
from transferability.data.packed import PackedDataset
from transferability.runs.probes import features_of_wave
from transferability.runs.store import Store
from transferability.study.spec import RunSpec
from transferability.training.execution import Execution

MEASURES = {"knn": "k nearest neighbors", "logme": "LogME", "h_score": "regularized H-score"}


def depths(
    probes: list[RunSpec], store: Store, dataset: PackedDataset, execution: Execution
) -> pd.DataFrame:
    """MEASURES at the depth of each of ``probes``, which share one base, from at most IMAGES images
    per subset; center crop, no mirror.

    Returns:
        A row per depth: n, knn (accuracy on validation images), knn_test (on test images; NaN if
        there are none), logme, h_score (both of training images).
    """
    features, classes = features_of_wave(probes, store, dataset, execution), list(probes[0].classes)
    rows = dataset.train_rows(classes, probes[0].images_per_class)[:IMAGES]
    asked = {"knn": dataset.val_rows(classes), "knn_test": dataset.test_rows(classes)}
    found = []
    for n in sorted(spec.cell.n for spec in probes):
        own, labels = (
            features.layer(n, rows).numpy(),
            np.searchsorted(classes, dataset.labels[rows]),
        )
        row: dict[str, float] = {
            "n": n,
            "logme": logme(own, labels),
            "h_score": h_score(own, labels),
        }
        for name, others in asked.items():
            few = others[:IMAGES]
            truth = np.searchsorted(classes, dataset.labels[few])
            there = features.layer(n, few).numpy()
            row[name] = knn(own, labels, there, truth) if len(few) else float("nan")
        found.append(row)
    return pd.DataFrame(found)[["n", "knn", "knn_test", "logme", "h_score"]]


def agreement(told: pd.DataFrame) -> list[str]:
    """A sentence per measure: the depth at which it is highest, and its rank correlation with the
    linear classifiers over depths.

    Args:
        told: the table of :func:`depths`, with ``validation`` (accuracy of the linear classifiers).
    """
    if len(told) < 2:
        return []
    best = told.loc[told.validation.idxmax()]
    said = []
    for key, name in MEASURES.items():
        own = told.loc[told[key].idxmax()]
        rho, *_ = rank_correlation(told[key].to_numpy(), told.validation.to_numpy())
        alike = f"{rho:.2f} " if rho == rho else "no "
        said.append(
            f"{name[0].upper()}{name[1:]}: highest at layer {own.n:.0f}, where the linear "
            f"classifier has a validation accuracy of {own.validation:.3f} (at its own best, "
            f"layer {best.n:.0f}, {best.validation:.3f}); {alike}rank correlation with it over "
            f"{len(told)} depths."
        )
    return said
