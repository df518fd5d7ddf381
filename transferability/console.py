"""No printing stops a command: characters that the terminal lacks are escaped,
and a reader may go (``| head``). And how numbers are written for people.
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
    """Start the command again in Python's UTF-8 mode where the locale is another one.

    Names of classes come from the disk: in Latin-1 they would be others,
    and so would a dataset's checksum.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # also of the processes that this one starts
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def output() -> Iterator[None]:
    """Within the block, and when the process ends, no printing is an error;
    if its reader has gone the block ends.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # not of TextIO
    try:
        yield
    except BrokenPipeError:
        if not any([_ends_here(stream) for stream in (sys.stdout, sys.stderr)]):
            raise  # of another pipe
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                _ends_here(stream)


def _ends_here(stream: TextIO) -> bool:
    """Whether nobody can read the stream any more; then what is printed goes nowhere."""
    gone = True  # on Windows, where nothing else tells
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # tells of errors alone
        gone = bool(poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone


def progress_bar(**options: Any) -> tqdm:
    """A bar of tqdm, in a notebook the notebook's; where there is neither that nor a terminal it
    is disabled.
    """
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
