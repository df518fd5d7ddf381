"""A linear classifier on frozen layers, fitted to convergence: L2-regularized logistic regression.

The strength is chosen from STRENGTHS on validation images. Each fit starts from the solution of the
next stronger one. The search ends after two strengths in a row that are less accurate than an
earlier one. The objective is the mean cross-entropy plus half the strength times the sum of the
squared weights, on standardized features; the bias is not penalized. No random numbers are used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferability.data.packed import PackedDataset
from transferability.networks.modules import LinearProbeHead
from transferability.networks.sequential import SequentialNetwork
from transferability.signals import StopRequest
from transferability.study.spec import RunSpec
from transferability.training.features import Features
from transferability.training.state import initial_network, one_thread

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # strongest first; not a setting
BLOCK = 1 << 28  # bytes of features, and of results computed from them, that a fit has in memory
EPSILON = nn.BatchNorm1d(1).eps  # as in the head


@dataclass(frozen=True)
class Probe:
    """A fitted classifier in its network.

    Attributes:
        metrics: a single evaluation, in the format of ``loop.evaluate``.
        predictions: in the format of ``loop.predict``. Because features are stored as float16, the
            network in float32 may predict another class for an image near a decision boundary.
        strength: the chosen one of STRENGTHS.
        views: the number of training images, including mirror images.
    """

    network: SequentialNetwork
    metrics: list[dict]
    predictions: dict[str, Tensor]
    strength: float
    views: int


class Samples:
    """Features and labels of images, in blocks of at most BLOCK bytes including a fit's results.

    A single block is kept in memory; several blocks are read again in every iteration.

    Args:
        read: (start, stop) -> features, (images, channels) float32, and labels, (images,).
        count: the number of images.
        change: applied to features after reading; may modify them in place.
    """

    def __init__(
        self,
        read: Callable[[int, int], tuple[Tensor, Tensor]],
        count: int,
        channels: int,
        classes: int,
        change: Callable[[Tensor], Tensor] = lambda x: x,
    ):
        self.read, self.count, self.change = read, count, change
        self.channels, self.classes = channels, classes
        self._kept: tuple[Tensor, Tensor] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = max(BLOCK // (4 * (self.channels + 3 * self.classes)), 1)
        if self._kept:
            yield self._kept
            return
        for start in range(0, self.count, images):
            x, y = self.read(start, min(start + images, self.count))
            block = self.change(x), y
            if images >= self.count:
                self._kept = block
            yield block

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Samples":
        """The same samples with ``change`` applied to their features."""
        return Samples(self.read, self.count, self.channels, self.classes, change)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, (channels,) float32."""

        def mean_of(change: Callable[[Tensor], Tensor]) -> Tensor:
            total, device = torch.zeros(self.channels, dtype=torch.float64), None
            for x, _ in self:
                total, device = total + change(x).sum(0).cpu(), x.device
            return (total / self.count).float().to(device)

        mean = mean_of(lambda x: x)
        return mean, mean_of(lambda x: (x - mean).square())


@dataclass(frozen=True)
class _Fit:
    """A classifier of standardized features.

    Attributes:
        mean, var: statistics of the training images' features, (channels,).
        weight: (classes, channels); bias: (classes,).
        loss: the mean cross-entropy on the training images.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    loss: float

    def logits(self, x: Tensor) -> Tensor:
        """Logits of features, standardized as by the head's BatchNorm in evaluation mode."""
        return (x - self.mean) * (self.var + EPSILON).rsqrt() @ self.weight.T + self.bias


def fit_probe(
    spec: RunSpec,
    source: dict[str, Tensor],
    dataset: PackedDataset,
    features: Features,
    device: torch.device,
    stop: StopRequest | None = None,
) -> Probe:
    """Fit the classifier of ``spec`` on the features of its base.

    The strength with the highest validation accuracy is chosen; ties are broken by validation loss.
    With ``spec.all_images``, the classifier is then fitted with this strength to the images of all
    subsets.

    Raises:
        KeyboardInterrupt: ``stop`` was requested.
    """
    classes = list(spec.classes)
    rows = dataset.train_rows(classes, spec.images_per_class)
    held_out = {"validation": dataset.val_rows(classes), "test": dataset.test_rows(classes)}

    samples = partial(_samples, spec, dataset, features, device)

    with one_thread():
        asked, scores, fits = samples(held_out["validation"]), list[tuple[float, float]](), []
        training = samples(rows, spec.recipe.mirror)
        for fit in _path(training, spec.recipe.steps, STRENGTHS, stop):
            fits.append(fit)
            scores.append(_score(fit, asked))
            if _falls(scores):
                break
        best = max(range(len(fits)), key=lambda i: (scores[i][0], -scores[i][1]))
        fit = fits[best]
        if spec.all_images:
            training = samples(dataset.every_row(classes), spec.recipe.mirror)
            *_, fit = _path(training, spec.recipe.steps, STRENGTHS[: best + 1], stop)
        predictions = {
            subset: _predicted(fit, samples(of)) for subset, of in held_out.items() if len(of)
        }
        top1, loss = _score(fit, asked)
    network = initial_network(spec, source["input.mean"].numpy(), source)
    _put(fit, cast(LinearProbeHead, network.layers[-1]))
    evaluation = {
        "step": spec.recipe.steps,
        "lr": spec.recipe.lr,
        "train_loss": fit.loss,
        "val_loss": loss,
        "val_top1": top1,
    }
    return Probe(network, [evaluation], predictions, STRENGTHS[best], training.count)


def _predicted(fit: _Fit, samples: Samples) -> Tensor:
    """The predicted label of each sample, (samples,) int16."""
    return torch.cat([fit.logits(x).argmax(1).cpu() for x, _ in samples]).to(torch.int16)


def _samples(
    spec: RunSpec,
    dataset: PackedDataset,
    features: Features,
    device: torch.device,
    of: np.ndarray,
    mirror: bool = False,
) -> Samples:
    """Features and labels of the rows ``of`` and, with ``mirror``, of their mirror images."""
    classes, views = list(spec.classes), (False, True)[: 1 + mirror]

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        places = np.arange(start, stop)
        view_of, rows = places // len(of), of[places % len(of)]
        x = torch.cat([features.layer(spec.cell.n, rows[view_of == v], bool(v)) for v in views])
        labels = np.searchsorted(classes, dataset.labels[rows])
        return x.to(device), torch.from_numpy(labels).to(device)

    return Samples(read, len(views) * len(of), features.channels(spec.cell.n), len(classes))


def _put(fit: _Fit, head: LinearProbeHead) -> None:
    assert head.norm.running_mean is not None and head.norm.running_var is not None  # tracked
    with torch.no_grad():
        head.norm.running_mean.copy_(fit.mean)
        head.norm.running_var.copy_(fit.var)
        head.linear.weight.copy_(fit.weight)
        head.linear.bias.copy_(fit.bias)


def _score(fit: _Fit, of: Samples) -> tuple[float, float]:
    """Top-1 accuracy and mean loss."""
    right, loss = 0, 0.0
    for x, y in of:
        logits = fit.logits(x)
        right += int((logits.argmax(1) == y).sum())
        loss += float(F.cross_entropy(logits, y)) * (len(y) / of.count)
    return right / of.count, loss


def _falls(scores: list[tuple[float, float]]) -> bool:
    """Whether the last two accuracies are both below an earlier one."""
    right = [top1 for top1, _ in scores]
    return len(right) > 2 and max(right[-2:]) < max(right[:-2])


def _path(
    of: Samples,
    iterations: int,
    strengths: tuple[float, ...],
    stop: StopRequest | None = None,
) -> Iterator[_Fit]:
    """Yield a fit for each strength, in order; each starts from the previous solution."""
    from scipy.optimize import minimize  # takes a quarter of a second to import

    mean, var = of.moments()
    scale = (var + EPSILON).rsqrt()
    flat = np.zeros(of.classes * (of.channels + 1))
    standardized = of.mapped(lambda x: x.sub_(mean).mul_(scale))
    for strength in strengths:

        def loss_and_gradient(flat: np.ndarray, strength: float = strength):
            if stop is not None and stop.requested:
                raise KeyboardInterrupt
            weight, bias = _unpacked(flat, mean, of.classes)
            loss, gradient = 0.0, torch.cat([strength * weight.flatten(), torch.zeros_like(bias)])
            for x, y in standardized:
                log_p = F.log_softmax(x @ weight.T + bias, 1)
                loss += float(F.nll_loss(log_p, y, reduction="sum")) / of.count
                rest = log_p.exp_()
                rest[torch.arange(len(y), device=y.device), y] -= 1
                rest /= of.count
                gradient += torch.cat([(rest.T @ x).flatten(), rest.sum(0)])
            loss += strength / 2 * float(weight.square().sum())
            return loss, gradient.cpu().double().numpy()

        options = {"maxiter": iterations, "ftol": 1e-7, "gtol": 1e-5}
        found = minimize(loss_and_gradient, flat, jac=True, method="L-BFGS-B", options=options)
        flat = found.x
        weight, bias = _unpacked(flat, mean, of.classes)
        loss = found.fun - strength / 2 * float(weight.square().sum())
        yield _Fit(mean, var, weight, bias, loss)


def _unpacked(flat: np.ndarray, like: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Split a flat array into weight and bias, on the device of ``like``."""
    values = torch.from_numpy(flat.astype(np.float32)).to(like.device)
    return values[:-classes].view(classes, -1), values[-classes:]
