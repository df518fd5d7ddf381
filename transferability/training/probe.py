"""A linear classifier on frozen layers, fitted to its end: L2-regularized logistic regression.

The strength is chosen on validation images, of STRENGTHS, each fit starting where the stronger one
ended. What is minimized is the mean cross-entropy plus half the strength times the sum of the
squared weights, on standardized features; the bias is free. Nothing is drawn: no seed matters.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

from transferability.data.packed import PackedDataset
from transferability.networks.modules import LinearProbeHead
from transferability.networks.sequential import SequentialNetwork
from transferability.study.spec import RunSpec
from transferability.training.features import Features
from transferability.training.state import initial_network, one_thread

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # strongest first; no setting
EPSILON = nn.BatchNorm1d(1).eps  # of the head's


@dataclass(frozen=True)
class Probe:
    """A fitted classifier in its network.

    Attributes:
        metrics: its one evaluation, as those of ``loop.evaluate``.
        predictions: as those of ``loop.predict``. Features are kept as float16: of an image on the
            border between two classes the network in float32 may take the other one.
        strength: the one of STRENGTHS that was chosen.
        views: training images, mirror images counted.
    """

    network: SequentialNetwork
    metrics: list[dict]
    predictions: dict[str, Tensor]
    strength: float
    views: int


@dataclass(frozen=True)
class _Fit:
    """A classifier of standardized features.

    Attributes:
        mean, var: of the features of the training images, (channels,).
        weight: (classes, channels); bias: (classes,).
        loss: the mean cross-entropy of the training images.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    loss: float

    def logits(self, x: Tensor) -> Tensor:
        """Of features, which are standardized as the head's BatchNorm does in evaluation."""
        return (x - self.mean) * (self.var + EPSILON).rsqrt() @ self.weight.T + self.bias


def fit_probe(
    spec: RunSpec,
    source: dict[str, Tensor],
    dataset: PackedDataset,
    features: Features,
    device: torch.device,
) -> Probe:
    """The classifier of ``spec`` on the features of the base it starts from; of those that are
    equally often right on validation images the one with the smaller loss there.

    Trained on all images, it has the strength that is chosen without validation images.
    """
    classes, n = list(spec.classes), spec.cell.n
    rows = dataset.train_rows(classes, spec.images_per_class)
    held_out = {"validation": dataset.val_rows(classes), "test": dataset.test_rows(classes)}

    def labelled(of: np.ndarray, mirror: bool = False) -> tuple[Tensor, Tensor]:
        views = [features.layer(n, of, mirrored) for mirrored in (False, True)[: 1 + mirror]]
        labels = torch.from_numpy(np.searchsorted(classes, dataset.labels[of]))
        return torch.cat(views).to(device), labels.repeat(len(views)).to(device)

    def fitted(of: np.ndarray, strengths: tuple[float, ...]) -> tuple[list[_Fit], int]:
        x, y = labelled(of, spec.recipe.mirror)
        return _path(x, y, len(classes), spec.recipe.steps, strengths), len(y)

    with one_thread():
        fits, views = fitted(rows, STRENGTHS)
        scores = [_score(fit, *labelled(held_out["validation"])) for fit in fits]
        best = max(range(len(fits)), key=lambda i: (scores[i][0], -scores[i][1]))
        fit = fits[best]
        if spec.all_images:
            again, views = fitted(dataset.every_row(classes), STRENGTHS[: best + 1])
            fit = again[-1]
        predictions = {
            part: fit.logits(labelled(of)[0]).argmax(1).cpu().to(torch.int16)
            for part, of in held_out.items()
            if len(of)
        }
        top1, loss = _score(fit, *labelled(held_out["validation"]))
    network = initial_network(spec, source["input.mean"].numpy(), source)
    _put(fit, cast(LinearProbeHead, network.layers[-1]))
    evaluation = {
        "step": spec.recipe.steps,
        "lr": spec.recipe.lr,
        "train_loss": fit.loss,
        "val_loss": loss,
        "val_top1": top1,
    }
    return Probe(network, [evaluation], predictions, STRENGTHS[best], views)


def _put(fit: _Fit, head: LinearProbeHead) -> None:
    assert head.norm.running_mean is not None and head.norm.running_var is not None  # tracked
    with torch.no_grad():
        head.norm.running_mean.copy_(fit.mean)
        head.norm.running_var.copy_(fit.var)
        head.linear.weight.copy_(fit.weight)
        head.linear.bias.copy_(fit.bias)


def _score(fit: _Fit, x: Tensor, y: Tensor) -> tuple[float, float]:
    logits = fit.logits(x)
    return int((logits.argmax(1) == y).sum()) / len(y), float(F.cross_entropy(logits, y))


def _path(
    x: Tensor, y: Tensor, classes: int, iterations: int, strengths: tuple[float, ...]
) -> list[_Fit]:
    """A fit for each strength, from the strongest on. Standardizes ``x`` in place: it may be
    large.
    """
    mean, var = x.mean(0), x.var(0, unbiased=False)
    x.sub_(mean).mul_((var + EPSILON).rsqrt())
    fits, one_hot = [], F.one_hot(y, classes).to(x)
    flat = np.zeros(classes * (x.shape[1] + 1))
    for strength in strengths:

        def loss_and_gradient(flat: np.ndarray, strength: float = strength):
            weight, bias = _unpacked(flat, x, classes)
            log_p = F.log_softmax(x @ weight.T + bias, 1)
            loss = -(log_p * one_hot).sum() / len(x) + strength / 2 * weight.square().sum()
            rest = (log_p.exp() - one_hot) / len(x)
            gradient = torch.cat([(rest.T @ x + strength * weight).flatten(), rest.sum(0)])
            return float(loss), gradient.cpu().double().numpy()

        options = {"maxiter": iterations, "ftol": 1e-7, "gtol": 1e-5}
        found = minimize(loss_and_gradient, flat, jac=True, method="L-BFGS-B", options=options)
        flat = found.x
        weight, bias = _unpacked(flat, x, classes)
        loss = float(F.cross_entropy(x @ weight.T + bias, y))
        fits.append(_Fit(mean, var, weight, bias, loss))
    return fits


def _unpacked(flat: np.ndarray, like: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of one array."""
    values = torch.from_numpy(flat.astype(np.float32)).to(like.device)
    return values[:-classes].view(classes, -1), values[-classes:]
