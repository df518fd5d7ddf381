"""No printing stops a command: characters that the terminal lacks are escaped, and a reader may go (``| head``)."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def output() -> Iterator[None]:
    """Within the block, and when the process ends, no printing is an error; if its reader has gone the block ends."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
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
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # tells of errors alone
    if gone := bool(poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone
