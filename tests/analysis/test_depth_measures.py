"""What kept features say of every depth, against the same computed another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.measurements.depths import agreement, depths
from tests.helpers import composed
from tests.miniature import CPU
from transferability import load_run
from transferability.networks.modules import global_avg_pool
from transferability.study import cells
from transferability.study.spec import make_spec

N = (1, 3, 7)


@pytest.fixture(scope="module")
def probes(config, dataset):
    recipe = replace(composed("recipe=probe").recipe, mirror=False)
    return [
        make_spec(
            cells.parse(f"A{n}.B"),
            "random-0",
            dataset,
            config.network,
            recipe,
            0,
            source_recipe=config.recipe,
        )
        for n in N
    ]


@pytest.fixture(scope="module")
def store(probes, trained):
    return trained(probes)


@pytest.fixture(scope="module")
def told(probes, store, dataset):
    return depths(probes, store, dataset, CPU).set_index("n")


def test_they_are_those_of_the_layers_outputs(told, probes, store, dataset):
    """A vote of the ten nearest by hand, LogME from its evidence as a sum of matrices, and the
    H-score with its covariance inverted.
    """
    classes = list(probes[0].classes)
    rows, asked = dataset.train_rows(classes), dataset.val_rows(classes)
    y, truth = (np.searchsorted(classes, dataset.labels[r]) for r in (rows, asked))
    run = load_run(store.folder(probes[-1]))

    def pooled(of, n):
        images = torch.from_numpy(dataset.read_rows(of))
        return global_avg_pool(run.features(images, n).detach(), 0).half().double().numpy()

    assert sorted(told.index) == list(N)
    for n in N:
        x, other = pooled(rows, n), pooled(asked, n)
        assert told.knn[n] == pytest.approx(_by_votes(x, y, other, truth), abs=0.05)
        assert told.logme[n] == pytest.approx(_evidence(x, y), abs=2e-3)
        assert told.h_score[n] == pytest.approx(_inverted(x, y), rel=0.02)
    assert told.knn_test.isna().all(), "there are no test images"


def _by_votes(x, y, other, truth):
    right = 0
    for image, label in zip(other, truth, strict=True):
        cosines = [a @ image / np.linalg.norm(a) / np.linalg.norm(image) for a in x]
        nearest = sorted(range(len(x)), key=lambda i: -cosines[i])[:10]
        votes = [sum(y[i] == c for i in nearest) for c in range(y.max() + 1)]
        right += votes.index(max(votes)) == label
    return right / len(truth)


def _evidence(x, y):
    """Algorithm 1 of You et al. (2021): iterated with the posterior's matrices, and the evidence as
    its equation 2 has it.
    """
    count, width = x.shape
    found = []
    for c in range(y.max() + 1):
        target, alpha, beta = (y == c).astype(float), 1.0, 1.0
        for _ in range(500):
            a = alpha * np.eye(width) + beta * x.T @ x
            m = beta * np.linalg.solve(a, x.T @ target)
            s = np.linalg.eigvalsh(x.T @ x)
            gamma = (beta * s / (alpha + beta * s)).sum()
            alpha = gamma / (m @ m)
            beta = (count - gamma) / ((target - x @ m) ** 2).sum()
        a = alpha * np.eye(width) + beta * x.T @ x
        m = beta * np.linalg.solve(a, x.T @ target)
        found.append(
            width / 2 * np.log(alpha)
            + count / 2 * np.log(beta)
            - count / 2 * np.log(2 * np.pi)
            - beta / 2 * ((target - x @ m) ** 2).sum()
            - alpha / 2 * m @ m
            - np.linalg.slogdet(a)[1] / 2
        )
    return np.mean(found) / count


def _inverted(x, y):
    """tr(S^-1 S_between) of Bao et al. (2019), both of the shrunk features (Ibrahim et al. 2022),
    the shrinkage as Ledoit & Wolf (2004) write it: a mean over images.
    """
    x = x - x.mean(0)
    count, width = x.shape
    s = x.T @ x / count
    target = np.trace(s) / width * np.eye(width)
    spread = sum(((np.outer(v, v) - s) ** 2).sum() for v in x) / count**2
    a = min(spread / ((s - target) ** 2).sum(), 1)
    own = np.stack([x[y == c].mean(0) for c in y])
    inverse = np.linalg.inv((1 - a) * s + a * target)
    return (1 - a) * np.trace(inverse @ (own.T @ own / count))


def test_what_they_say_of_the_best_depth(told):
    table = told.reset_index().assign(validation=[0.2, 0.5, 0.4])
    table = table.assign(logme=[0.1, 0.2, 0.3], knn=[0.1, 0.5, 0.3], h_score=[3.0, 2.0, 1.0])
    nearest, logme, score = agreement(table)
    assert nearest.startswith("K nearest neighbors: highest at layer 3, where the linear")
    assert "; 1.00 rank correlation with it over 3 depths" in nearest
    assert logme.startswith("LogME: highest at layer 7") and "validation accuracy of 0.400" in logme
    assert "(at its own best, layer 3, 0.500); 0.50 rank correlation with it" in logme
    assert "highest at layer 1" in score and "; -0.50 rank" in score
    assert "; no rank correlation" in agreement(table.assign(knn=1.0))[0]
