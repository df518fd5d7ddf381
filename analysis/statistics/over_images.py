"""Intervals over the images, and the seeds, that something was measured on.

Arrays are (seeds, images): whether a strategy has an image right, 1 or 0; of two strategies the
difference, 1 where the first alone is right, -1 where the second alone is. Where fewer than FEW
images say anything, the normal approximation is too sure of itself (of no image that differs it
would have an interval without width), and intervals for counts take its place. The variance
between seeds is added to either.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from analysis.statistics.intervals import within
from transferability.rng import numpy_rng

FEW = 10  # images of a kind: from as many on the normal approximation serves
DRAWS = 1000  # of a bootstrap
Part = tuple[float, float]  # a variance of the mean, and its degrees of freedom


def together(count: int) -> float:
    """The confidence of each of ``count`` intervals that are simultaneous at 95% (Bonferroni)."""
    return 1 - 0.05 / max(count, 1)


def seed_part(*strategies: np.ndarray) -> Part | None:
    """What chance in training adds to the variance of the difference of strategies that have no
    seeds in common, or of one strategy; each varies as much as those with several seeds do. None
    where none has several.

    Args:
        strategies: those that are trained, each (seeds, images).
    """
    means = [right.mean(1) for right in strategies]
    freedom = sum(len(own) - 1 for own in means)
    if not freedom:
        return None
    pooled = sum(((own - own.mean()) ** 2).sum() for own in means) / freedom
    return float(pooled * sum(1 / len(own) for own in means)), float(freedom)


def two_way_interval(
    values: np.ndarray, confidence: float = 0.95, seeds: Part | None = None
) -> tuple[float, float, float]:
    """The mean of ``values``, with its interval over images and seeds by the normal approximation.

    The variances of both are added: what is left of each image after all seeds, and of each seed
    after all images. Student's t with Satterthwaite's degrees of freedom; of one seed the interval
    is over images alone.

    Args:
        values: (seeds, images).
        seeds: the part of the seeds, where ``values`` do not have them.
    """
    images = values.shape[1]
    if images < 2:  # one image says nothing of others
        return float(values.mean()), -np.inf, np.inf
    parts = [(float(values.mean(0).var(ddof=1)) / images, images - 1.0)]
    return _normal(float(values.mean()), parts, seeds or seed_part(values), confidence)


def accuracy_interval(right: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The accuracy of a strategy; of few images that are right, or wrong, the interval of Clopper
    and Pearson (1934).
    """
    images, tail = right.shape[1], (1 - confidence) / 2
    count = float(right.mean(0).sum())
    if min(count, images - count) >= FEW:
        return within(two_way_interval(right, confidence), 0)
    low = float(stats.beta.ppf(tail, count, images - count + 1)) if count > 0 else 0.0
    high = 1.0
    if count < images:
        high = float(stats.beta.ppf(1 - tail, count + 1, images - count))
    found = _with_seeds(count / images, low, high, seed_part(right), confidence)
    return within(found, 0)


def difference_interval(
    differences: np.ndarray, confidence: float = 0.95, seeds: Part | None = None
) -> tuple[float, float, float]:
    """The mean difference of two strategies on the same images; where few images differ, Tango's
    score interval (1998).

    Args:
        differences: (seeds, images); of four networks up to -2 or 2.
        seeds: the part of the seeds, where ``differences`` do not have them.
    """
    by_image = differences.mean(0)
    most = max(1.0, float(np.abs(differences).max()))
    if np.count_nonzero(by_image) >= FEW:
        return within(two_way_interval(differences, confidence, seeds), -most, most)
    gained, lost = (float(np.clip(s * by_image / most, 0, 1).sum()) for s in (1, -1))
    low, high = (most * end for end in _tango(gained, lost, len(by_image), confidence))
    part = seeds or seed_part(differences)
    return within(_with_seeds(float(by_image.mean()), low, high, part, confidence), -most, most)


def balanced_interval(
    values: np.ndarray,
    labels: np.ndarray,
    differences: bool = False,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """The mean over classes of the means of their images, with its interval. Within a class the
    variance is that with four images more, two right and two wrong (Agresti and Coull 1998); of
    ``differences`` with two more, of which one differs (Agresti and Min 2005).

    Args:
        values: (seeds, images).
        labels: the class of each image, (images,).
    """
    more = np.array([-1, 1]) / np.sqrt(2) if differences else np.array([0.0, 0.0, 1.0, 1.0])
    classes = np.unique(labels)
    means = np.stack([values[:, labels == c].mean(1) for c in classes]).mean(0)  # of each seed
    with_more = [np.concatenate([values[:, labels == c].mean(0), more]) for c in classes]
    variance = sum(float(own.var()) / len(own) for own in with_more) / len(classes) ** 2
    parts = [(variance, max(len(labels) - len(classes), 1.0))]
    found = _normal(float(means.mean()), parts, seed_part(means[:, None]), confidence)
    return within(found, -1 if differences else 0)


def covering_choice(validation: list[np.ndarray], test: list[np.ndarray]) -> tuple[float, float]:
    """A 95% interval of the accuracy of what is chosen, the best strategy first: the choice is made
    again on validation images drawn with replacement, and measured on test images drawn so, with
    one of its seeds.

    Args:
        validation, test: of each strategy what is right, (seeds, images).
    """
    draw = numpy_rng("choice", len(test), test[0].shape[1])

    def counts(images: int) -> np.ndarray:
        return draw.multinomial(images, np.full(images, 1 / images), DRAWS)

    images = validation[0].shape[1]
    means = np.stack([right.mean(0) for right in validation])
    chosen = (means @ counts(images).T).argmax(0)
    weights = counts(test[0].shape[1]) / test[0].shape[1]
    values = np.empty(DRAWS)
    for strategy in set(chosen.tolist()):
        mine = np.flatnonzero(chosen == strategy)
        seeds = draw.integers(0, len(test[strategy]), len(mine))
        values[mine] = (test[strategy][seeds] * weights[mine]).sum(1)
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def _normal(
    center: float, parts: Sequence[Part], seeds: Part | None, confidence: float
) -> tuple[float, float, float]:
    known = [*parts, *([seeds] if seeds else [])]
    variance = sum(part for part, _ in known)
    if variance == 0:
        return center, center, center
    freedom = variance**2 / sum(part**2 / df for part, df in known)
    half = float(stats.t.isf((1 - confidence) / 2, freedom) * np.sqrt(variance))
    return center, center - half, center + half


def _with_seeds(
    center: float, low: float, high: float, seeds: Part | None, confidence: float
) -> tuple[float, float, float]:
    """An interval over images, made wider by what the seeds add: squares of distances are added."""
    half = 0.0
    if seeds:
        half = float(stats.t.isf((1 - confidence) / 2, seeds[1]) * np.sqrt(seeds[0]))
    return (
        center,
        center - float(np.hypot(center - low, half)),
        center + float(np.hypot(high - center, half)),
    )


def _tango(gained: float, lost: float, images: int, confidence: float) -> tuple[float, float]:
    """The differences that a score test does not reject (Tango 1998).

    Args:
        gained, lost: the images that the first, or the second, alone has right.
    """
    z = stats.norm.isf((1 - confidence) / 2)

    def lowest(gained: float, lost: float) -> float:
        def above(delta: float) -> float:
            """By how much what was seen exceeds ``delta``, less z standard errors."""
            b = (2 * images - gained + lost) * delta - gained - lost
            c = -lost * delta * (1 - delta)
            other = (np.sqrt(max(b**2 - 8 * images * c, 0.0)) - b) / (4 * images)
            variance = images * max(2 * other + delta * (1 - delta), 0.0)
            return float(gained - lost - images * delta - z * np.sqrt(variance))

        seen = (gained - lost) / images - 1e-9
        return float(optimize.brentq(above, -1, seen)) if above(-1) > 0 > above(seen) else -1.0

    return lowest(gained, lost), -lowest(lost, gained)
