"""What is known about weights that were trained elsewhere, beside their values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transferability.errors import UserError, reason, shown
from transferability.identity import label
from transferability.networks.config import LibraryConfig, NetworkConfig


@dataclass(frozen=True)
class Facts:
    """What those who made the weights say of them, and what was done to read them.

    Attributes:
        origin: who says so.
        size: pixels a side that they were trained for.
        resized: pixels of the shorter side before the crop in the middle.
        classes: the names of their classes, in the order of the outputs; None: not known.
    """

    origin: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    resized: int | None = None
    interpolation: str | None = None
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
            "licence": self.licence,
        }
        known = [f"{k} {_text(v)}" for k, v in named.items() if v is not None]
        return [f"{', '.join(known)} ({self.origin})", *self.notes]


@dataclass(frozen=True)
class Given:
    """The base network A whose weights are given: what it is, without its tensors.

    Attributes:
        weights: the file, or the library's name for them.
        digest: SHA-256 of its tensors, those of the input among them.
        network: with the weights' own number of outputs.
    """

    weights: str = label()
    digest: str
    network: NetworkConfig
    facts: Facts = label(Facts())

    @property
    def id(self) -> str:
        return self.digest

    def lines(self) -> list[str]:
        """What is known about it, for a plan or report."""
        what = f"{self.network.model}, {self.network.outputs} classes, SHA-256 {self.digest[:12]}"
        name = Path(self.weights).name  # where the file lies is nobody else's concern
        return [f"Base A is given: {name} ({what})", *self.facts.lines()]

    def adapted(self, network: NetworkConfig) -> NetworkConfig:
        """``network`` with the input that layer 1 of the given base was trained on."""
        keys = ("channel_mean", "channel_std", "input_scale")
        return replace(network, **{key: getattr(self.network, key) for key in keys})


def no_weights(tag: str, network: LibraryConfig, tags: list[str]) -> UserError:
    """That the library has no weights of this name."""
    known = f"it has {', '.join(tags)}" if tags else "it has none"
    return UserError(
        f"weights={shown(tag)} is no file, and no name of weights that {network.kind} has for "
        f"{network.model}: {known}"
    )


@contextmanager
def downloading(tag: str, where: str) -> Iterator[None]:
    """Raises:
    UserError: no network, or nothing there.
    """
    try:
        yield
    except Exception as error:  # of whichever library downloads
        raise UserError(
            f"weights={tag} cannot be downloaded ({reason(error)}): fetch the file on a machine "
            f"that can, from {where}, and give its path: weights=PATH"
        ) from error


def _text(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
