"""Errors that a user can cause and fix, and how names are written in their messages."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """Something the user can put right.

    The message says what is wrong, where, and what to do, in one line: names from the disk in it
    are :func:`shown`.
    """

    def __init__(self, message: str):
        super().__init__(shown(message))

    def _render_traceback_(self) -> list[str]:
        """One line in a notebook, too, where it would be the last of a traceback (IPython)."""
        return [f"error: {self}"]


def require(condition: bool, key: str, value: Any, wanted: str) -> None:
    """A setting must be ``wanted``: one message for all that are not."""
    if not condition:
        value = list(value) if isinstance(value, tuple) else "null" if value is None else value
        raise UserError(f"{key}={value} must be {wanted}")


def did_you_mean(name: str, names: Iterable[str], above: str = "") -> str:
    """The nearest of ``names``, with what is ``above`` it, as what follows a message; nothing where
    none is near.
    """
    near = get_close_matches(name, sorted(names), 1, 0.7)
    return f": did you mean {above}{near[0]}?" if near else ""


def shown(text: Any) -> str:
    """A name from the disk, fit for one line: line ends, control and undecodable characters
    escaped.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def and_more(names: list) -> str:
    """What follows the first of ``names`` in a message."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def reason(error: BaseException | str) -> str:
    """What went wrong, without the path that OSErrors repeat, in one line."""
    strerror = getattr(error, "strerror", None)
    return shown(strerror or " ".join(str(error).split()) or type(error).__name__)
