"""What an accuracy is worth where classes are not of equal size: what the commonest class alone
gives, and the mean over classes (balanced accuracy).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.statistics.over_images import balanced_interval, difference_interval
from analysis.tables import StudyResults

ACCURACY, BALANCED = "accuracy", "balanced_accuracy"  # what study.choose_by may be
Z = 1.96  # of a 95% interval
POWER = 0.84  # what is added to it for a power of 80%
SEEN = 0.05  # a difference of accuracy that is worth knowing of
LOST = 0.1  # one that must not be lost in chance


@dataclass(frozen=True)
class Majority:
    """Always predicting the most frequent class.

    Attributes:
        name: of the class.
        accuracy: of the images of a subset.
        above: by how much a strategy is above it on the same images, with a 95% interval.
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
    """The accuracy on ``subset`` of predicting the class that is most frequent among the validation
    images, beside a strategy with ``right``, (seeds, images); None of a single class.
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
    """The accuracy on a subset of predicting its most frequent class, of each task whose labels are
    kept; the study's tasks, in their order.
    """
    tasks = dict.fromkeys(tables.networks.task)
    kept = [tables.predictions.get(f"{task} {subset}") for task in tasks]
    return [np.bincount(labels).max() / len(labels) for labels in kept if labels is not None]


def balancing(labels: np.ndarray) -> np.ndarray:
    """A weight for each image, (images,): the mean of what is right, weighted so, is the mean over
    classes of the share of each that is right.
    """
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[which])


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float(((predicted == labels) * balancing(labels)).mean())


def few_images(tables: StudyResults) -> str | None:
    """:func:`too_few` of the task with the fewest validation images, by how much its networks
    differ: from the median accuracy, as if they were right on images of their own, where it is not
    known on which.
    """
    done = tables.networks[tables.networks.accuracy.notna()]
    if done.empty:
        return None
    own = done[done.val_images == done.val_images.min()]
    share = own.accuracy.median()
    differing = 2 * share * (1 - share)
    right = own.right.dropna() if "right" in own else ()
    if len(right) > 1:
        ones = np.stack(list(right))
        differing = float(np.median((ones[1:] != ones[0]).mean(1)))
    return too_few(int(own.val_images.iloc[0]), differing, "validation")


def too_few(images: int, differing: float, subset: str) -> str | None:
    """That so few images cannot answer, and how many would; None where they are enough.

    Args:
        differing: the share of images that only one of two strategies has right.
    """
    share = (differing * images + 1) / (images + 2)  # few images that agree are no proof
    lost = Z * np.sqrt(share / images)
    if lost <= LOST:
        return None
    needed = int(np.ceil(share * ((Z + POWER) / SEEN) ** 2))
    return (
        f"So few images cannot answer: with {images} {subset} image{'s' * (images > 1)} a "
        f"difference below {min(lost, 1):.2f} is lost in chance; to see one of {SEEN:g} in 80% "
        f"of cases takes about {needed:,}."
    )
