"""Allowed values of settings, declared at their fields: ``lr: Annotated[float, above(0)]``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from transferability.errors import require


@dataclass(frozen=True)
class Bound:
    """A condition on a value, or on each value of a list."""

    holds: Callable[[Any], bool]
    wanted: str  # in words, to follow "must be" in a message


def above(low: float) -> Bound:
    return Bound(lambda value: low < value < math.inf, f"a number above {low:g}")


def at_least(low: float) -> Bound:
    return Bound(lambda value: low <= value < math.inf, f"at least {low:g}")


def between(low: float, high: float) -> Bound:
    """At least ``low`` and below ``high``."""
    return Bound(lambda value: low <= value < high, f"at least {low:g} and below {high:g}")


def one_of(*names: str) -> Bound:
    *others, last = names
    return Bound(lambda value: value in names, f"{', '.join(others)} or {last}")


NAMED = Bound(lambda name: bool(name.strip()), "a name")  # tables have no empty ones
SHARE = Bound(lambda share: 0 < share <= 1, "a number above 0, and at most 1")


def check_bounds(settings: Any, section: str = "") -> None:
    """Check each value of a dataclass against the bounds of its field; None is always allowed.

    Raises:
        UserError: a value is out of bounds; the message has its name, prefixed by ``section``.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value: Any = getattr(settings, name, None)
        for bound in getattr(hint, "__metadata__", ()):
            several = isinstance(value, (list, tuple))
            fits = all(one is None or bound.holds(one) for one in (value if several else [value]))
            wanted = bound.wanted.replace("a number", "numbers") if several else bound.wanted
            wanted += ", or null" if NoneType in get_args(get_args(hint)[0]) else ""
            require(fits, f"{section}{name}", value, wanted)
