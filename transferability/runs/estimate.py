"""Estimates of the remaining training time.

Networks that have not begun are assumed to take as long per multiply-add as networks of their kind
that are training now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transferability.data.packed import PackedDataset
from transferability.networks.sequential import profile_layers
from transferability.runs.progress import Progress
from transferability.study.jobs import group_into_jobs
from transferability.study.spec import RunSpec


def macs(
    job: list[RunSpec],
    dataset: PackedDataset,
    step: Callable[[RunSpec], int],
    weight: Callable[[RunSpec], float] = lambda spec: 1.0,
) -> float:
    """Multiply-adds of training the networks of a job from the ``step`` of each, with validation.

    A backward pass counts as two forward passes; shared prefixes count once. The multiply-adds of
    each network are multiplied by its ``weight``.
    """
    total, prefixes = 0.0, dict[tuple, float]()
    validated = len(dataset.val_rows(list(job[0].classes)))
    for spec in job:
        work = [weight(spec) * c.macs for c in profile_layers(spec.network)]
        frozen = spec.cell.frozen
        steps = spec.recipe.steps - step(spec)
        train = steps * spec.recipe.batch_size
        evaluate = steps / spec.recipe.eval_every * validated
        total += sum(work[frozen:]) * (3 * train + evaluate)
        prefix = (spec.network.whole, spec.cell.source)
        prefixes[prefix] = max(prefixes.get(prefix, 0.0), sum(work[:frozen]) * (train + evaluate))
    return total + sum(prefixes.values())


@dataclass(frozen=True)
class Workload:
    """The multiply-adds of the networks that are training and of those that have not begun.

    Attributes:
        per_image: per training process, the multiply-adds per network-image and thread.
        ahead: multiply-adds of the networks that have not begun, per thread that has a network.
        unlike: the number of such networks whose kind is not training now; not part of ``ahead``.
    """

    per_image: list[float]
    ahead: float
    unlike: int

    def seconds(self, training: Sequence[Progress]) -> float:
        """Seconds until these processes have trained all networks; at least one needs a rate."""
        speeds = [
            progress.rates[1] * work
            for progress, work in zip(training, self.per_image, strict=True)
            if progress.rates
        ]
        lefts = [left for progress in training if (left := progress.seconds_left) is not None]
        begun = sum(left * speed for left, speed in zip(lefts, speeds, strict=True))
        return max(*lefts, (begun + self.ahead) / sum(speeds))


def workload(
    training: Sequence[list[RunSpec]],
    threads: Sequence[int],
    to_begin: list[RunSpec],
    step: Callable[[RunSpec], int],
    dataset: PackedDataset,
) -> Workload:
    """The workload of a study.

    Args:
        training: the networks that each process trains now.
        threads: how many networks each process trains at a time.
        to_begin: the networks that have not begun.
        step: the next training step of such a network.
    """
    per_image = []
    for specs, at_once in zip(training, threads, strict=True):
        work = sum(macs(job, dataset, lambda spec: 0) for job in group_into_jobs(specs))
        images = sum(spec.recipe.steps * spec.recipe.batch_size for spec in specs)
        per_image.append(work / images / min(at_once, len(specs)))
    measured = {_kind(spec) for specs in training for spec in specs}
    known = [spec for spec in to_begin if _kind(spec) in measured]
    ahead = 0.0
    for stage in {spec.stage for spec in known}:
        together = [spec for spec in known if spec.stage == stage]
        work = sum(macs(job, dataset, step) for job in group_into_jobs(together))
        ahead += work / min(max(threads), len(together))
    return Workload(per_image, ahead, len(to_begin) - len(known))


def _kind(spec: RunSpec) -> tuple:
    return spec.network.whole, spec.recipe.precision
