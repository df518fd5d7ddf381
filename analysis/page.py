"""Settings of pages: sizes and formats of figures, and the default margin of equivalence."""

from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("pdf", "svg", "png")
MARGIN = 0.01  # the accuracy difference below which one may count as good as the other: 1 point


@dataclass(frozen=True)
class Page:
    """The formats and sizes of drawings.

    Attributes:
        formats: the formats of the files.
        width: of each panel, in inches, for a paper with its own captions: one file per panel, with
            its legend. None: all panels of a drawing on one page, with title and caption.
        font: size of the text, in points, if ``width`` is given.
    """

    formats: Sequence[str] = FORMATS
    width: float | None = None
    font: float = 8.0
