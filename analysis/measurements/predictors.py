"""Transferability metrics: estimates from the features of a base, without training.

Each metric maps the pooled output of one layer, for images of the task, to one number; higher is
better. None of them is maintained in a package. Compared with measured accuracy, they show how much
of the result a single forward pass gives.
"""

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from analysis.tables import task_of
from transferability.data.packed import PackedDataset
from transferability.networks.modules import global_avg_pool
from transferability.networks.pretrained import pretrained_state_dict
from transferability.networks.sequential import SequentialNetwork
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.study.spec import RunSpec
from transferability.training.loader import TaskLoader
from transferability.training.state import one_thread

PREDICTORS = ["split", "task", "base", "predictor", "n", "value", "images"]
IMAGES = 2000  # the maximum number of training images, and of validation images
NEIGHBORS = 10
_STEPS, _TINY = 50, 1e-12  # iterations of LogME's fixed point; a guard against division by 0


def knn(train: np.ndarray, labels: np.ndarray, features: np.ndarray, truth: np.ndarray) -> float:
    """The share of images whose class wins the vote of the ``NEIGHBORS`` nearest training images by
    cosine similarity of features (ties go to the lower label).

    Args:
        train, features: (N, D), (M, D). labels, truth: (N,), (M,) from 0.
    """

    def unit(f: np.ndarray) -> np.ndarray:
        return f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), _TINY)

    near = np.argsort(-(unit(features) @ unit(train).T), axis=1, kind="stable")[:, :NEIGHBORS]
    votes = np.stack([np.bincount(v, minlength=labels.max() + 1) for v in labels[near]])
    return float((votes.argmax(1) == truth).mean())


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME: the log evidence per image of a Bayesian linear model of each class against the
    others, maximized over the precisions alpha (of the weights) and beta (of the noise), and
    averaged over classes. You et al., ICML 2021; solved by MacKay's fixed point, as in You et al.,
    JMLR 2022.

    Args:
        features: (N, D). labels: (N,) from 0.
    """
    count, width = features.shape
    u, s, _ = np.linalg.svd(features.astype(float), full_matrices=False)
    return float(
        np.mean([_evidence(u, s**2, labels == c, count, width) for c in np.unique(labels)])
    )


def _evidence(u: np.ndarray, sigma: np.ndarray, y: np.ndarray, count: int, width: int) -> float:
    """The log evidence of one class, per image."""
    z = u.T @ y
    outside = max(float(y.sum() - z @ z), 0.0)  # the part of y outside the span of the features
    alpha = beta = 1.0
    for _ in range(_STEPS):
        ratio = alpha / beta
        gamma = (sigma / (sigma + ratio)).sum()
        weights = (sigma * z**2 / (sigma + ratio) ** 2).sum()
        errors = (z**2 / (1 + sigma / ratio) ** 2).sum() + outside
        alpha, beta = gamma / (weights + _TINY), (count - gamma) / (errors + _TINY)
        if abs(alpha / beta - ratio) <= 1e-6 * ratio:
            break
    ratio = alpha / beta
    weights = (sigma * z**2 / (sigma + ratio) ** 2).sum()
    errors = (z**2 / (1 + sigma / ratio) ** 2).sum() + outside
    determinant = np.log(alpha + beta * sigma).sum() + (width - len(sigma)) * np.log(alpha)
    evidence = width * np.log(alpha) + count * np.log(beta) - determinant
    return (evidence - alpha * weights - beta * errors - count * np.log(2 * np.pi)) / (2 * count)


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """The regularized H-score, tr(S^-1 (1 - a) S_between), where S is the covariance of the
    features, shrunk by ``a`` towards a multiple of the identity (Ledoit & Wolf 2004). Ibrahim et
    al., "Newer is not always better", ECML 2022. Without shrinkage (Bao et al. 2019), any features
    with more dimensions than images would score the number of classes minus one.

    Args:
        features: (N, D). labels: (N,) from 0.
    """
    x = features.astype(float) - features.mean(0)
    means = np.stack([x[labels == c].mean(0) for c in np.unique(labels)])
    weights = np.array([(labels == c).mean() for c in np.unique(labels)])
    between = means * np.sqrt(weights)[:, None]  # its covariance is between.T @ between
    covariance = x.T @ x / len(x)
    a = shrinkage(x)
    shrunk = (1 - a) * covariance
    shrunk[np.diag_indices_from(shrunk)] += a * np.trace(covariance) / x.shape[1] + _TINY
    return float((1 - a) * np.trace(between @ np.linalg.solve(shrunk, between.T)))


def shrinkage(x: np.ndarray) -> float:
    """The shrinkage intensity of Ledoit & Wolf (2004) for the covariance of centered ``x``, (N, D):
    0 keeps the covariance, 1 replaces it by a multiple of the identity.
    """
    count, width = x.shape
    covariance = x.T @ x / count
    mean = np.trace(covariance) / width
    distance = ((covariance**2).sum() - width * mean**2) / width
    spread = ((x**2).sum(1) ** 2).sum() / count - (covariance**2).sum()
    if distance <= _TINY * mean**2:  # already a multiple of the identity
        return 0.0
    return float(min(spread / count / width / distance, 1.0))


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """LEEP: the mean log likelihood of the labels when predicted from the base's class
    probabilities, log sum_z P(y|z) p(z|x). Nguyen et al., ICML 2020. At most 0.

    Args:
        probabilities: of the base's own classes for each image, (N, Z). labels: (N,) from 0.
    """
    joint = np.stack([probabilities[labels == c].sum(0) for c in range(labels.max() + 1)])
    given = joint / np.maximum(joint.sum(0), _TINY)
    return float(np.log((probabilities * given[labels]).sum(1)).mean())


def predictors(
    specs: list[RunSpec], dataset: PackedDataset, known: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Each metric for every layer of the pretrained bases of ``specs``, for their tasks.

    Features are globally average-pooled outputs of layers for at most IMAGES training and
    validation images, center crop. LEEP uses the base's own classifier, so its n is the number of
    layers; it is left out if the base has no classifier.

    Args:
        known: an earlier result; its rows for the same bases, tasks and images are reused.

    Returns:
        A row per predictor and layer: split, task (see :func:`task_of`), base (digest of its
        tensors), predictor, n, value, images (number of training images).
    """
    chosen: dict[tuple, tuple[RunSpec, PretrainedBase]] = {}
    for spec in specs:
        if isinstance(base := spec.source, PretrainedBase):
            chosen.setdefault((base.id, spec.classes, spec.images_per_class), (spec, base))
    tables = []
    for spec, base in chosen.values():
        key = {"split": spec.split, "task": task_of(spec.classes), "base": base.id[:12]}
        stream = TaskLoader.of(spec, dataset, torch.device("cpu"))
        images = min(len(stream.train_rows), IMAGES)
        rows = _known(known, key | {"images": images})
        if rows is None:
            rows = pd.DataFrame(_told(base, stream)).assign(**key, images=images)[PREDICTORS]
        tables.append(rows)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=PREDICTORS)


def _known(table: pd.DataFrame | None, key: dict) -> pd.DataFrame | None:
    if table is None or table.empty:
        return None
    rows = table[(table[list(key)] == pd.Series(key)).all(axis=1)]
    return rows if len(rows) else None


def _told(base: PretrainedBase, stream: TaskLoader) -> list[dict]:
    state = pretrained_state_dict(base)
    network = SequentialNetwork(base.network, state["input.mean"].numpy()).eval()
    has_classifier = not network.load_state_dict(state, strict=False).missing_keys
    (*train, logits), labels = _features(network, stream, stream.train_rows[:IMAGES])
    (*val, _), truth = _features(network, stream, stream.val_rows[:IMAGES])
    found = []
    if has_classifier:
        value = leep(softmax(logits.astype(float), axis=1), labels)
        found.append({"predictor": "LEEP", "n": len(network.layers), "value": value})
    for n, (own, other) in enumerate(zip(train, val, strict=True), 1):
        told = {
            "k nearest neighbours": knn(own, labels, other, truth),
            "LogME": logme(own, labels),
            "regularized H-score": h_score(own, labels),
        }
        found += [{"predictor": name, "n": n, "value": value} for name, value in told.items()]
    return found


def _features(
    network: SequentialNetwork, stream: TaskLoader, rows: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """The pooled outputs of all layers for the images ``rows``, (N, C) each, and their labels."""
    found: list[list[np.ndarray]] = [[] for _ in network.layers]
    labels = []
    channel_dims = network.channel_dims
    with torch.no_grad(), one_thread():
        for batch in stream.batches_of(rows):
            x = network.input(batch)
            for own, layer, channel_dim in zip(found, network.layers, channel_dims, strict=True):
                x = layer(x)
                own.append(global_avg_pool(x, channel_dim).numpy())
            labels.append(batch.labels.numpy())
    return [np.concatenate(own) for own in found], np.concatenate(labels)
