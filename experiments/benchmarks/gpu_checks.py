"""Checks that the fast ways of training on a GPU compute the same as plain operations, for each
network, step and layer.

Four networks train for a few steps in two ways: plainly (one operation after another, nothing
fused, captured or stacked), and fast. Both are compared with plain operations in float64. Before
each step, all networks get the weights and momentum of this reference, rounded to float32, so
rounding errors of one step do not grow in the next.

Rounding has large effects where it decides a maximum or a ReLU, even in float32; in bf16 it changes
the gradient of a low layer by a quarter. Therefore the error of the fast way in each layer may be
at most ``FURTHER`` times that of the plain way: in float32 the largest error over networks and
steps; in bf16, where all gradients differ, the median. Errors below ``EXACT`` pass in float32,
below ``FLOOR`` in bf16.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transferability.networks.compiled import fused
from transferability.training.execution import Execution
from transferability.training.gpu_step import GpuStep
from transferability.training.loop import Cohort
from transferability.training.state import TrainState

STEPS = 3
FURTHER = 2.0
# relative to the loss, or to the norm of a layer's gradient or momentum
EXACT, FLOOR = 1e-3, 2e-3


def networks(n_layers: int) -> list[str]:
    """The cells that are compared: two that are trained whole, and two with frozen layers, which
    are stacked and trained as one.
    """
    n = min(3, n_layers - 1)
    return [f"B{min(2, n)}B+", f"A{n}B+", f"A{n}B", f"B{n}B"]


@dataclass(frozen=True)
class Check:
    """A comparison: its name, the largest value found, where it was found, and its limit."""

    what: str
    found: float
    where: str
    limit: float

    @property
    def passed(self) -> bool:
        return self.found <= self.limit  # NaN does not pass

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        return (
            f"{verdict:7} {self.what}: {self.found:.2g} at most, "
            f"in {self.where} (limit {self.limit:g})"
        )


def check_way(what: str, make: Callable[[str], Cohort], execution: Execution) -> list[Check]:
    """Compare ``execution`` with plain operations, in float32 and in bf16.

    Args:
        make: makes the cohort of :func:`networks` in a precision, always with the same weights.
    """
    ways = {
        (precision, way): (make(precision), execution if way == "fast" else None)
        for precision in ("float32", "bf16")
        for way in ("plain", "fast")
    }
    errors = compared(make("float32"), ways)
    checks = []
    for precision, typical, least in (("float32", max, EXACT), ("bf16", statistics.median, FLOOR)):
        plain, fast = (
            {q: typical(of.values()) for q, of in errors[precision, way].items()}
            for way in ("plain", "fast")
        )
        ratio = max((fast[q] / max(plain[q], least / FURTHER), f"the {q}") for q in fast)
        checks.append(Check(f"{what}, {precision}, times the plain error", *ratio, FURTHER))
    return checks


Way = tuple[str, str]
Errors = dict[str, dict[tuple[str, int], float]]  # by quantity, then network and step


def compared(
    reference: Cohort, others: dict[Way, tuple[Cohort, Execution | None]]
) -> dict[Way, Errors]:
    """The relative errors of ``others`` in STEPS steps; an execution of None is plain operations.

    Each step starts from the state of ``reference``, which is converted to float64.
    """
    plain = GpuStep(stacked=False, graphs=False)
    found: dict[Way, Errors] = {way: defaultdict(dict) for way in others}
    steps = {
        k: GpuStep(e.stacked, e.graphs) if e else GpuStep(False, False)
        for k, (_, e) in others.items()
    }
    for cohort in (reference, *(cohort for cohort, _ in others.values())):
        for m in cohort.states:
            m.network.train()
    for m in reference.states:
        _in_float64(m)
    for step in range(STEPS):
        _advance(plain, reference, step, plainly=True)
        for way, (cohort, execution) in others.items():
            _advance(steps[way], cohort, step, plainly=execution is None)
            for m, r in zip(cohort.states, reference.states, strict=True):
                expected = _quantities(r)
                for quantity, value in _quantities(m).items():
                    found[way][quantity][str(m.spec.cell), step] = error(value, expected[quantity])
                m.restore(r.checkpoint())
        for m, r in zip(cohort.states, reference.states, strict=True):
            r.restore(m.checkpoint())  # rounded to float32, as in the others
    return found


def _in_float64(state: TrainState) -> None:
    state.network.double()
    state.network.layers[0].register_forward_pre_hook(lambda layer, args: (args[0].double(),))
    for kept in state.optimizer.state.values():
        kept["momentum_buffer"] = kept["momentum_buffer"].double()


def error(found: Tensor, reference: Tensor) -> float:
    """|found - reference| / |reference|; 0 if both are zero, as below a layer of dead units."""
    found, reference = found.detach().double(), reference.detach().double()
    return ((found - reference).norm() / reference.norm().clamp(min=1e-30)).item()


def _advance(steps: GpuStep, cohort: Cohort, step: int, plainly: bool) -> None:
    work = [(cohort.stream.batch(step), cohort.states)]
    if not plainly:
        steps(work)
        return
    with fused(False):
        steps(work)


def _quantities(state: TrainState) -> dict[str, Tensor]:
    """The loss of a step, and the gradient and momentum (with weight decay) of each trained layer.

    Gradient and momentum are flattened over the parameters of the layer.
    """
    out, network, kept = {"loss": state.loss}, state.network, state.optimizer.state
    for number in range(network.frozen + 1, len(network.layers) + 1):
        parameters: list[Any] = list(network.layers[number - 1].parameters())
        out[f"gradient of layer {number}"] = torch.cat([p.grad.flatten() for p in parameters])
        out[f"momentum of layer {number}"] = torch.cat(
            [kept[p]["momentum_buffer"].flatten() for p in parameters]
        )
    return out
