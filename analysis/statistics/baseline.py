"""Baselines for classes of unequal size: the accuracy of predicting the most frequent class, and
balanced accuracy (the mean over classes).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.statistics.over_images import balanced_interval, difference_interval
from analysis.tables import StudyResults, balancing

ACCURACY, BALANCED = "accuracy", "balanced_accuracy"  # values of study.choose_by
Z = 1.96  # normal quantile of a 95% interval
POWER = 0.84  # added to Z for a power of 80%
SEEN = 0.05  # a difference in accuracy that is worth detecting
LOST = 0.1  # the largest difference in accuracy that may go undetected


@dataclass(frozen=True)
class Majority:
    """Always predicting the most frequent class.

    Attributes:
        name: the name of the class.
        accuracy: its accuracy on the images of a subset, or its balanced accuracy.
        above: how far a strategy is above ``accuracy`` on the same images, with a 95% interval.
    """

    name: str
    accuracy: float
    above: tuple[float, float, float]

    @property
    def always(self) -> str:
        return f"Always predicting {self.name}, the most frequent class, gives {self.accuracy:.3f}"

    @property
    def sentence(self) -> str:
        value, low, high = self.above
        if low > 0:
            return f"{self.always}."
        return (
            f"{self.always}: the best is not significantly above that ({value:+.3f} [{low:+.3f}, "
            f"{high:+.3f}])."
        )


def majority(
    tables: StudyResults, task: str, subset: str, right: np.ndarray, balanced: bool = False
) -> Majority | None:
    """The accuracy on ``subset`` of predicting the most frequent class of the validation images,
    compared with a strategy with ``right``, (seeds, images); None if there is a single class. With
    ``balanced``, both are balanced accuracies.
    """
    labels = tables.predictions[f"{task} {subset}"]
    if len(np.unique(labels)) < 2:
        return None
    common = int(np.bincount(tables.predictions[f"{task} validation"]).argmax())
    always = (labels == common).astype(float)
    classes: Any = tables.predictions.get(f"{task} classes", [])
    names = tables.metadata.get("dataset", {}).get("class_names", [])
    known = len(classes) > common and len(names) > classes[common]
    weights = balancing(labels) if balanced else 1.0
    pairs = right - always
    above = balanced_interval(pairs, labels, True) if balanced else difference_interval(pairs)
    name = repr(names[classes[common]]) if known else "one class"
    return Majority(name, float((always * weights).mean()), above)


def commonest(tables: StudyResults, subset: str = "validation") -> list[float]:
    """The accuracy on a subset of predicting its most frequent class, for each task of the study
    whose labels were kept, in the study's order.
    """
    tasks = dict.fromkeys(tables.networks.task)
    kept = [tables.predictions.get(f"{task} {subset}") for task in tasks]
    return [np.bincount(labels).max() / len(labels) for labels in kept if labels is not None]


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float(((predicted == labels) * balancing(labels)).mean())


def few_images(tables: StudyResults) -> str | None:
    """Apply :func:`too_few` to the task with the fewest validation images.

    The share of differing images is the median over networks. If predictions were not kept, it
    follows from the median accuracy, as if networks were right on independent images.
    """
    done = tables.networks[tables.networks.accuracy.notna()]
    if done.empty:
        return None
    own = done[done.task == done.task[done.val_images.idxmin()]]
    share = own.accuracy.median()
    differing = 2 * share * (1 - share)
    right = own.right.dropna() if "right" in own else ()
    if len(right) > 1:
        ones = np.stack(list(right))
        differing = float(np.median((ones[1:] != ones[0]).mean(1)))
    return too_few(int(own.val_images.iloc[0]), differing, "validation")


def too_few(images: int, differing: float, subset: str) -> str | None:
    """State that the images are too few, and how many are needed; None if they are enough.

    Args:
        differing: the share of images that only one of two strategies predicts correctly.
    """
    share = (differing * images + 1) / (images + 2)  # agreement on few images is no proof
    lost = Z * np.sqrt(share / images)
    if lost <= LOST:
        return None
    needed = int(np.ceil(share * ((Z + POWER) / SEEN) ** 2))
    return (
        f"So few images cannot answer: with {images} {subset} image{'s' * (images > 1)} a "
        f"difference below {min(lost, 1):.2f} is lost in chance; to see one of {SEEN:g} in 80% "
        f"of cases takes about {needed:,}."
    )
