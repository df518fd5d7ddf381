"""Ctrl-C and SIGTERM: the current training step is completed and saved, in one process or in all
workers of a launcher.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POSIX = os.name == "posix"  # Windows can neither block signals nor send them to other processes
_ASKED = "TRANSFERABILITY_STOP"  # in the environment of workers that start after the signal


class StopRequest:
    """Whether a stop of training was requested.

    Not a ``threading.Event``, whose lock is not reentrant: a second signal that arrives while the
    handler of the first sets the event would wait forever.
    """

    requested = False


# in a launcher and its workers, for the lifetime of the process
_asked: StopRequest | None = None


@contextmanager
def stop_requests(second_kills: bool = True) -> Iterator[StopRequest]:
    """Within the block, Ctrl-C and SIGTERM request a stop, so that the current step is completed; a
    second signal of the same kind kills the process, unless ``second_kills`` is False.

    The two signals are counted separately, because Ctrl-C reaches a whole process group, and a
    parent that received it forwards the other signal. Handlers that other code has installed are
    kept: under Slurm, submitit ignores SIGTERM, because Slurm counts a preempted job that exits
    before it is killed as failed and does not requeue it.

    Raises:
        KeyboardInterrupt: a stop was requested, and the block ended without an exception, e.g.
            because no step was left that checks for requests.
    """
    if _asked is not None:
        yield _asked
        raise_if_stopped()
        return
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ours = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN)
    # None: the handler of a program that embeds Python, which cannot be set again
    before = {n: h for n, h in handlers.items() if h in ours}

    def request(number: int, *_: object) -> None:
        stop.requested = True
        if second_kills:
            # Python's own handler would wait for threads; killing the process is safe at any time
            signal.signal(number, signal.SIG_DFL)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.requested:
        raise KeyboardInterrupt


@contextmanager
def interrupted_by_sigterm() -> Iterator[signal.Signals | None]:
    """Within the block, SIGTERM acts like Ctrl-C even if nothing is being trained.

    Yields the signal that interrupts this thread: SIGTERM, or SIGINT where other code has installed
    a handler for SIGTERM (submitit), which is kept; None outside the main thread, which alone can
    set handlers, and in workers of a launcher.
    """
    before, own = signal.getsignal(signal.SIGTERM), signal.default_int_handler
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    if before not in (signal.SIG_DFL, own):
        yield signal.SIGINT if signal.getsignal(signal.SIGINT) is own else None
        return
    signal.signal(signal.SIGTERM, own)
    try:
        yield signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_requested() -> bool:
    """Whether a stop of this launcher, or of this worker, was requested."""
    return _asked is not None and _asked.requested


def raise_if_stopped() -> None:
    """End a launcher or worker here if a stop was requested; signals do not interrupt them.

    Raises:
        KeyboardInterrupt: a stop was requested.
    """
    if stop_requested():
        raise KeyboardInterrupt


def listen_as_launcher() -> None:
    """From now on, forward the first Ctrl-C or SIGTERM to the worker processes; a second signal of
    the same kind kills them and this process.

    Joblib kills its workers as soon as an exception reaches it. Therefore no exception is raised:
    this process waits until the workers have saved.
    """
    global _asked
    stop = _asked = StopRequest()

    def request(number: int, *_: object) -> None:
        signal.signal(number, kill)
        os.environ[_ASKED] = "1"
        stop.requested = True
        if not POSIX:  # Ctrl-C reaches every process of a Windows console; SIGTERM would kill
            return
        for pid in filter(None, (worker.pid for worker in multiprocessing.active_children())):
            os.kill(pid, signal.SIGTERM)

    def kill(number: int, *_: object) -> None:
        for pid in filter(None, (worker.pid for worker in multiprocessing.active_children())):
            os.kill(pid, signal.SIGKILL if POSIX else signal.SIGTERM)
        os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, request)
    if not POSIX:
        return
    # Workers inherit the blocked signals: a signal that arrives during their start waits until they
    # listen. In this process another thread receives the signal, and the main thread handles it.
    resource_tracker.ensure_running()  # unblocks both when it starts
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def listen_as_worker() -> None:
    """From now on, a signal makes the current job save and end, and later jobs not begin.

    Raises:
        KeyboardInterrupt: a stop was requested before.
    """
    global _asked
    if _asked is None:
        stop = _asked = StopRequest()
        for number in SIGNALS:
            signal.signal(number, lambda *_: setattr(stop, "requested", True))
        if POSIX:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if os.environ.get(_ASKED):
            stop.requested = True
    raise_if_stopped()
