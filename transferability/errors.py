"""Errors that a user can cause and fix, and the formatting of names in their messages."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """An error that the user can fix.

    The message is one line that says what is wrong, where, and what to do. Names from the disk are
    escaped by :func:`shown`.
    """

    def __init__(self, message: str):
        super().__init__(shown(message))

    def _render_traceback_(self) -> list[str]:
        """Show one line instead of a traceback in a notebook (IPython)."""
        return [f"error: {self}"]


def require(condition: bool, key: str, value: Any, wanted: str) -> None:
    """Raise a UserError that ``key`` must be ``wanted`` unless ``condition`` holds."""
    if not condition:
        value = list(value) if isinstance(value, tuple) else "null" if value is None else value
        raise UserError(f"{key}={value} must be {wanted}")


def did_you_mean(name: str, names: Iterable[str], above: str = "") -> str:
    """The end of a message: the nearest of ``names``, after ``above``; empty if none is near."""
    near = get_close_matches(name, sorted(names), 1, 0.7)
    return f": did you mean {above}{near[0]}?" if near else ""


def shown(text: Any) -> str:
    """Escape line ends, control and undecodable characters in a name from the disk."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def and_more(names: list) -> str:
    """The text that follows the first of ``names`` in a message: `` and 2 more``, or nothing."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def reason(error: BaseException | str) -> str:
    """The message of an error on one line, without the path that OSErrors include."""
    strerror = getattr(error, "strerror", None)
    return shown(strerror or " ".join(str(error).split()) or type(error).__name__)
