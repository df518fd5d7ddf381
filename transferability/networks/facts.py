"""What is known about weights that were trained elsewhere, beside their values."""

from dataclasses import dataclass
from typing import Any

from transferability.identity import later


@dataclass(frozen=True)
class Facts:
    """What those who made the weights say of them, and what was done to read them.

    Attributes:
        origin: who says so.
        size: pixels a side that they were trained for.
        resized: pixels of the shorter side before the crop in the middle.
        fit, orientation, encoding: see ``Preprocessing``; None: a crop, not known, none.
        classes: the names of their classes, in the order of the outputs; None: not known.
    """

    origin: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    resized: int | None = None
    interpolation: str | None = None
    fit: str | None = later(None)
    orientation: str | None = later(None)
    encoding: str | None = later(None)
    licence: str | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Lists, as JSON has them, become tuples."""
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    def lines(self) -> list[str]:
        """For a plan or report."""
        named = {
            "mean": self.mean,
            "standard deviation": self.std,
            "pixels a side": self.size,
            "resized to": self.resized,
            "interpolation": self.interpolation,
            "fit": self.fit,
            "orientation": self.orientation,
            "encoding": self.encoding,
            "licence": self.licence,
        }
        known = [f"{k} {_text(v)}" for k, v in named.items() if v is not None]
        return [f"{', '.join(known)} ({self.origin})", *self.notes]


def _text(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
