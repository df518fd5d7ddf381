"""The page that figures are drawn for."""

from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class Page:
    """What drawings are made for.

    Attributes:
        width: of each panel, in inches, for a paper that has a caption of its own: a file a panel,
            with its legend. None: all panels of a drawing on one page, with title and caption.
        font: size of the text, in points, where ``width`` is given.
    """

    formats: Sequence[str] = FORMATS
    width: float | None = None
    font: float = 8.0
