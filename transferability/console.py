"""Printing that never stops a command, and numbers in messages.

Characters that the terminal cannot encode are escaped, and the reader may exit early (``| head``).
"""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_PER_DAY = 86400


def in_utf8() -> None:
    """Restart the command in Python's UTF-8 mode if the locale uses another encoding.

    Class names come from the disk: read as Latin-1, they and the dataset's checksum would differ.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # also for child processes
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def output() -> Iterator[None]:
    """Within the block and at exit, printing raises no error. The block ends if the reader exits.

    Raises:
        BrokenPipeError: the reader of another pipe has exited.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # not of TextIO
    try:
        yield
    except BrokenPipeError:
        if not any([_ends_here(stream) for stream in (sys.stdout, sys.stderr)]):
            raise  # the error is from another pipe
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                _ends_here(stream)


def _ends_here(stream: TextIO) -> bool:
    """Whether the stream's reader has exited; if so, redirect the stream to the null device."""
    gone = True  # on Windows, where the reader cannot be checked
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # reports only errors
        gone = bool(poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone


def progress_bar(**options: Any) -> tqdm:
    """A tqdm progress bar: a widget in a notebook, and disabled without a notebook or terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or "IPKernelApp" not in shell.config:
        return tqdm(**options, disable=None)
    from tqdm.auto import tqdm as of_notebook

    return of_notebook(**options, disable=False)


def pluralize(number: int, what: str) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    """``40 s``, ``5 min``, ``2.5 h``, ``3.0 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return (
        f"{seconds / 3600:.1f} h"
        if seconds < 2 * SECONDS_PER_DAY
        else f"{seconds / SECONDS_PER_DAY:.1f} days"
    )
