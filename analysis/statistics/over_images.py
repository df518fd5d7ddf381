"""Intervals of accuracies and their differences over images and seeds.

Arrays are (seeds, images): 1 where a strategy predicts an image correctly, else 0; for a difference
of two strategies, 1 where only the first is right, -1 where only the second is. If fewer than FEW
images are informative, intervals of the normal approximation are too narrow (of no width if no
image differs) and are replaced by intervals for counts. The variance between seeds is added to
both.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.statistics.intervals import within
from analysis.tables import StudyResults
from transferability.rng import numpy_rng

FEW = 10  # informative images from which on the normal approximation is used
DRAWS = 1000  # bootstrap samples
Part = tuple[float, float]  # a component of the variance of the mean, and its degrees of freedom


def together(count: int) -> float:
    """The confidence of each of ``count`` intervals with simultaneous 95% coverage (Bonferroni)."""
    return 1 - 0.05 / max(count, 1)


def seed_part(*strategies: np.ndarray) -> Part | None:
    """The variance between seeds of one strategy, or of the difference of strategies without common
    seeds; None if no strategy has several seeds.

    The variance is pooled over strategies with several seeds and assumed for all.

    Args:
        strategies: the strategies that are trained, each (seeds, images).
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

    The variance is the sum of two parts: of the images' means over seeds, and of the seeds' means
    over images. The interval is Student's t with Satterthwaite's degrees of freedom; with one seed
    it is over images alone.

    Args:
        values: (seeds, images).
        seeds: the variance between seeds, if ``values`` are already means over seeds.
    """
    images = values.shape[1]
    if images < 2:  # the variance between images is unknown
        return float(values.mean()), -np.inf, np.inf
    parts = [(float(values.mean(0).var(ddof=1)) / images, images - 1.0)]
    return _normal(float(values.mean()), parts, seeds or seed_part(values), confidence)


def accuracy_interval(right: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The accuracy of a strategy with its interval; that of Clopper and Pearson (1934) if fewer
    than FEW images are right, or wrong.
    """
    images = right.shape[1]
    count = float(right.mean(0).sum())
    if min(count, images - count) >= FEW:
        return within(two_way_interval(right, confidence), 0)
    ends = _clopper_pearson(count, images, confidence)
    return within(_with_seeds(count / images, *ends, seed_part(right), confidence), 0)


def margins(accuracy: pd.Series, images: pd.Series) -> tuple[pd.Series, pd.Series]:
    """How far the 95% intervals of accuracies reach below and above them, each over its number of
    images (:func:`with_binomial_images`): the normal approximation, or that of Clopper and Pearson
    (1934) if fewer than FEW images are right, or wrong.

    The interval of a difference of independent accuracies reaches sqrt(below(first)^2 +
    above(second)^2) below it (Newcombe 1998, "square and add").
    """
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / images)
    below, above = half.copy(), half.copy()
    for row in np.flatnonzero(np.minimum(accuracy, 1 - accuracy) * images < FEW - 1e-6):
        value, count = accuracy.iloc[row], images.iloc[row]
        low, high = _clopper_pearson(value * count, count, 0.95)
        below.iloc[row], above.iloc[row] = value - low, high - value
    return below, above


def with_binomial_images(tables: StudyResults) -> pd.DataFrame:
    """The study's networks with ``binomial_images``, the number of images on which an accuracy has
    the binomial variance: all validation images, or, of balanced accuracy,
    :func:`binomial_images`; NaN if predictions were not kept.
    """
    networks = tables.networks
    if tables.measure != "balanced":
        return networks.assign(binomial_images=networks.val_images)
    if "weights" not in networks:
        return networks.assign(binomial_images=np.nan)
    pairs = zip(networks.right, networks.weights, strict=True)
    images = [np.nan if right is None else binomial_images(right, own) for right, own in pairs]
    return networks.assign(binomial_images=images)


def binomial_images(right: np.ndarray, weights: np.ndarray) -> float:
    """The number of images on which the binomial variance of an accuracy would be the variance of
    this balanced accuracy. If all classes are of one size, it is the number of images.

    The variance is the sum of those within classes, of one size together, between their images and
    four more, two right and two wrong (Agresti and Coull 1998): few images of a class, even if all
    are right, show little.

    Args:
        right: the correct predictions, (images,).
        weights: those of ``tables.balancing``, (images,).
    """
    mean = variance = 0.0
    for weight in np.unique(weights):
        own = right[weights == weight]
        share, p = len(own) * weight / len(weights), (own.sum() + 2) / (len(own) + 4)
        mean += share * p
        variance += share**2 * p * (1 - p) / len(own)
    return float(mean * (1 - mean) / variance)


def _clopper_pearson(count: float, images: float, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, count, images - count + 1)) if count > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, count + 1, images - count)) if count < images else 1.0
    return low, high


def difference_interval(
    differences: np.ndarray, confidence: float = 0.95, seeds: Part | None = None
) -> tuple[float, float, float]:
    """The mean difference of two strategies on the same images with its interval; Tango's score
    interval (1998) if fewer than FEW images differ.

    Args:
        differences: (seeds, images); from -2 to 2 for a difference of differences.
        seeds: the variance between seeds, if ``differences`` are already means over seeds.
    """
    by_image = differences.mean(0)
    most = max(1.0, float(np.abs(differences).max()))
    if np.count_nonzero(by_image) >= FEW:
        return within(two_way_interval(differences, confidence, seeds), -most, most)
    gained, lost = (float(np.clip(s * by_image / most, 0, 1).sum()) for s in (1, -1))
    low, high = (most * end for end in tango(gained, lost, len(by_image), confidence))
    part = seeds or seed_part(differences)
    return within(_with_seeds(float(by_image.mean()), low, high, part, confidence), -most, most)


def balanced_interval(
    values: np.ndarray,
    labels: np.ndarray,
    differences: bool = False,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """The mean over classes of the means over their images, with its interval.

    The variance between the images of a class is computed with four more images, two right and two
    wrong (Agresti and Coull 1998), or, for ``differences``, with two more, of which one differs
    (Agresti and Min 2005). The mean is that of the images that there are, so its error is not
    divided by the larger number.

    Args:
        values: (seeds, images).
        labels: the class of each image, (images,).
    """
    more = np.array([-1, 1]) / np.sqrt(2) if differences else np.array([0.0, 0.0, 1.0, 1.0])
    classes = np.unique(labels)
    means = np.stack([values[:, labels == c].mean(1) for c in classes]).mean(0)  # per seed
    with_more = [np.concatenate([values[:, labels == c].mean(0), more]) for c in classes]
    errors = [own.var() / (len(own) - len(more)) for own in with_more]
    variance = float(sum(errors)) / len(classes) ** 2
    parts = [(variance, max(len(labels) - len(classes), 1.0))]
    found = _normal(float(means.mean()), parts, seed_part(means[:, None]), confidence)
    return within(found, -1 if differences else 0)


def covering_choice(validation: list[np.ndarray], test: list[np.ndarray]) -> tuple[float, float]:
    """A 95% bootstrap interval of the test accuracy of the strategy chosen on validation images.

    Each sample repeats the choice on validation images drawn with replacement, and measures the
    chosen strategy, with one of its seeds, on test images drawn with replacement.

    Args:
        validation, test: per strategy, the correct predictions, (seeds, images). The best strategy
            comes first, as ties go to the first.
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
    """Widen an interval over images by the variance between seeds: half-widths are added in
    quadrature.
    """
    half = 0.0
    if seeds:
        half = float(stats.t.isf((1 - confidence) / 2, seeds[1]) * np.sqrt(seeds[0]))
    return (
        center,
        center - float(np.hypot(center - low, half)),
        center + float(np.hypot(high - center, half)),
    )


def tango(gained: float, lost: float, images: int, confidence: float) -> tuple[float, float]:
    """The differences that a score test does not reject (Tango 1998).

    Args:
        gained, lost: the number of images that only the first, or only the second, has right.
    """
    z = stats.norm.isf((1 - confidence) / 2)

    def lowest(gained: float, lost: float) -> float:
        def above(delta: float) -> float:
            """How far the observed difference exceeds ``delta``, minus z standard errors."""
            b = (2 * images - gained + lost) * delta - gained - lost
            c = -lost * delta * (1 - delta)
            other = (np.sqrt(max(b**2 - 8 * images * c, 0.0)) - b) / (4 * images)
            variance = images * max(2 * other + delta * (1 - delta), 0.0)
            return float(gained - lost - images * delta - z * np.sqrt(variance))

        seen = (gained - lost) / images - 1e-9
        return float(optimize.brentq(above, -1, seen)) if above(-1) > 0 > above(seen) else -1.0

    return lowest(gained, lost), -lowest(lost, gained)
