"""Ctrl-C and SIGTERM: a training step ends whole and is saved,
in one process or in all workers of a launcher.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POSIX = os.name == "posix"  # Windows can neither block a signal nor send one to another process
_ASKED = "TRANSFERABILITY_STOP"  # in the environment of workers that start after the signal


class StopRequest:
    """Whether training was asked to stop.

    ``threading.Event`` takes a lock that is not reentrant: a second signal that arrives while the
    handler of the first one sets the event would wait for it for ever.
    """

    requested = False


# of a launcher and its workers, for as long as the process lives
_asked: StopRequest | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block Ctrl-C and SIGTERM request a stop, so that a step ends whole;
    a second one stops at once.

    Each of the two counts alone: where a group of processes gets a signal, and one of them passes
    it on, it passes on the other one. A handler of somebody else's stays: under Slurm submitit
    takes no notice of SIGTERM, because a preempted job that ends by itself before Slurm kills it
    has failed for Slurm, and is not requeued.

    Raises:
        KeyboardInterrupt: a stop was requested, and the block ended without one, as it does where
            it had no step left to look.
    """
    if _asked is not None:
        yield _asked
        raise_if_stopped()
        return
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread hears signals
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {
        n: h for n, h in handlers.items() if h is signal.default_int_handler or not callable(h)
    }

    def request(number: int, *_: object) -> None:
        stop.requested = True
        # Python's own handler would wait for threads; any death is safe
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
def interrupted_by_sigterm() -> Iterator[bool]:
    """Within the block SIGTERM is like Ctrl-C, also where nothing trains; says whether it is: only
    the main thread hears signals, and a handler of somebody else's stays.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before not in (
        signal.SIG_DFL,
        signal.default_int_handler,
    ):
        yield False
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield True
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_requested() -> bool:
    """Whether this launcher, or worker of one, was asked to stop."""
    return _asked is not None and _asked.requested


def raise_if_stopped() -> None:
    """In a launcher or a worker, which are not interrupted wherever they are: end here if they
    were asked to.

    Raises:
        KeyboardInterrupt: they were.
    """
    if stop_requested():
        raise KeyboardInterrupt


def listen_as_launcher() -> None:
    """From now on the first Ctrl-C or SIGTERM is passed on to the worker processes;
    a second one kills them and this.

    Joblib kills its workers as soon as an exception reaches it.
    So none does: this process waits until they have saved.
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
    # Workers inherit what is blocked here: a signal that comes while they start waits until they
    # listen. It is another thread that hears it for this process, and the main one that handles it.
    resource_tracker.ensure_running()  # unblocks both when it starts
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def listen_as_worker() -> None:
    """From now on a signal lets the job under way save and end, and those that follow not begin.

    Raises:
        KeyboardInterrupt: there was one already.
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
