"""What pages are told: the sizes that figures are drawn for, and what counts as good."""

from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("pdf", "svg", "png")
MARGIN = 0.01  # a difference of accuracy up to which one may count as good as the other: 1 point


@dataclass(frozen=True)
class Page:
    """What drawings are made for.

    Attributes:
        width: of each panel, in inches, for a paper that has a caption of its own: one file per
            panel, with its legend. None: all panels of a drawing on one page, with title and
            caption.
        font: size of the text, in points, where ``width`` is given.
    """

    formats: Sequence[str] = FORMATS
    width: float | None = None
    font: float = 8.0
