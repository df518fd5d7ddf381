"""Two signals at the same moment, as Ctrl-C gives them to what a sweep has started."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from transferability.signals import stop_requests


@contextmanager
def tracing(trace) -> Iterator[None]:
    before = sys.gettrace()  # of a debugger, or of what measures coverage
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """A block that waits for ever ends with an error."""

    def ring(*_) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_a_second_signal_at_any_line_of_the_handler_of_the_first_is_heard(first, second):
    """A sweep gets SIGINT with what it has started, and passes SIGTERM on."""
    line, seen = 0, 1
    while line < seen:
        line, seen = line + 1, 0

        def trace(frame, event, _, line: int = line):
            nonlocal seen
            if event == "line":
                seen += 1
                if seen == line:
                    signal.raise_signal(second)
            return trace

        with alarm(10), stop_requests() as stop, tracing(trace):
            signal.raise_signal(first)
        assert stop.requested
    assert line > 3, "it was sent within the handler"
