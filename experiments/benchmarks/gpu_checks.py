"""Whether a GPU computes what the plain operations compute, network by network, step by step,
layer by layer.

Four networks make a few steps in two ways: plainly (one operation after another, nothing fused,
captured or stacked), and fast. Before each step the fast ones get the plain ones' weights and
momentum, so every step is compared by itself: what is rounded in one does not grow in the next.

In float32 the two must agree to ``EXACT`` in every layer of every network and step. In bf16 nothing
agrees: rounding alone changes the gradient of a low layer by a quarter, and where it decides a
maximum or a ReLU by more. There both are compared with float32, and in each layer the fast way's
error (the median over networks and steps) may be at most ``FURTHER`` times the plain way's. What is
wrong by more than 0.1% fails the first check, what rounds more than bf16 has to fails the second.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transferability.cohort import Cohort, Execution
from transferability.gpu import Steps
from transferability.kernels import fused
from transferability.member import Member

STEPS = 3
EXACT = 1e-3  # of the loss, or of the norm of a layer's gradient or momentum
FURTHER = 2.0
FLOOR = 1e-3  # an error of bf16 below this is not compared


def networks(n_layers: int) -> list[str]:
    """The cells that are compared: two that are trained whole, two with frozen layers,
    which a stack trains as one.
    """
    n = min(3, n_layers - 1)
    return [f"B{min(2, n)}B+", f"A{n}B+", f"A{n}B", f"B{n}B"]


@dataclass(frozen=True)
class Check:
    """What was compared, the worst that was found and where, and what it may be."""

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
    """``execution`` against plain operations, in float32 and in bf16.

    Args:
        make: makes the cohort of :func:`networks` in a precision; always the same one.
    """
    errors = compared(make("float32"), {"fast": (make("float32"), execution)})["fast"]
    worst = max(
        (e, f"the {q} of {network}, step {step}")
        for q, of in errors.items()
        for (network, step), e in of.items()
    )
    both = compared(
        make("float32"), {"plain": (make("bf16"), None), "fast": (make("bf16"), execution)}
    )
    plain, fast = (
        {q: statistics.median(of.values()) for q, of in both[k].items()} for k in ("plain", "fast")
    )
    ratio = max((fast[q] / max(plain[q], FLOOR), f"the {q}") for q in fast)
    return [
        Check(f"{what}, float32", *worst, EXACT),
        Check(f"{what}, bf16, times the plain error", *ratio, FURTHER),
    ]


Errors = dict[str, dict[tuple[str, int], float]]  # by quantity, then network and step


def compared(
    reference: Cohort, others: dict[str, tuple[Cohort, Execution | None]]
) -> dict[str, Errors]:
    """The relative errors of each of ``others`` (None: plainly) in a few steps,
    all from the state of ``reference``.
    """
    plain, found = Steps(stacked=False, graphs=False), {name: defaultdict(dict) for name in others}
    steps = {
        k: Steps(e.stacked, e.graphs) if e else Steps(False, False) for k, (_, e) in others.items()
    }
    for cohort in (reference, *(cohort for cohort, _ in others.values())):
        for m in cohort.members:
            m.network.train()
    for step in range(STEPS):
        _advance(plain, reference, step, plainly=True)
        for name, (cohort, execution) in others.items():
            _advance(steps[name], cohort, step, plainly=execution is None)
            for m, r in zip(cohort.members, reference.members, strict=True):
                expected = _quantities(r)
                for quantity, value in _quantities(m).items():
                    found[name][quantity][str(m.spec.cell), step] = error(value, expected[quantity])
                m.restore(r.checkpoint())
    return found


def error(found: Tensor, reference: Tensor) -> float:
    """|found - reference| / |reference|; 0 where both are nothing,
    as below a layer that is dead.
    """
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    return ((found - reference).norm() / reference.norm().clamp(min=1e-30)).item()


def _advance(steps: Steps, cohort: Cohort, step: int, plainly: bool) -> None:
    work = [(cohort.stream.batch(step), cohort.members)]
    if not plainly:
        steps(work)
        return
    with fused(False):
        steps(work)


def _quantities(member: Member) -> dict[str, Tensor]:
    """The loss of a step, and of each layer that is trained the gradient and the momentum (with
    decay, as float32).
    """
    out, network, state = {"loss": member.loss}, member.network, member.optimiser.state
    for number in range(network.frozen + 1, len(network.layers) + 1):
        parameters = list(network.layers[number - 1].parameters())
        out[f"gradient of layer {number}"] = torch.cat([p.grad.flatten() for p in parameters])
        out[f"momentum of layer {number}"] = torch.cat(
            [state[p]["momentum_buffer"].flatten() for p in parameters]
        )
    return out
