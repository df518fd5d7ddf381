"""The time left for a race, and the predicted time of the networks that it trains next."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from experiments.cost import Cost
from transferability.console import duration
from transferability.networks.sequential import profile_layers
from transferability.runs.estimate import macs
from transferability.signals import interrupted_by_sigterm
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec

log = logging.getLogger(__name__)
LINE = 30.0  # seconds between two lines of a log
LOOKS = 0.2  # seconds between two checks of a clock
CAUTION = 1.1  # a factor on predicted times


class Clock:
    """The time limit of a command: ``seconds`` after ``began``, on the clock ``now``."""

    def __init__(self, seconds: float, began: float, now: Callable[[], float] = time.monotonic):
        self.ends, self.now = began + seconds, now
        self.page = 0.0  # seconds that writing the page took last
        self.over = False  # whether the time limit ended training

    @property
    def left(self) -> float:
        """Seconds left for training; time for writing the page afterwards is reserved."""
        return self.ends - self.now() - 1.5 * self.page

    @contextmanager
    def limit(self) -> Iterator[None]:
        """End the block at the time limit as Ctrl-C does: training saves and stops. If no signal
        interrupts this thread (``interrupted_by_sigterm``), the block runs to its end.
        """
        ended = threading.Event()

        def wait(number: signal.Signals) -> None:
            while not ended.wait(min(max(self.left, 0.0), LOOKS)):
                if self.left <= 0:
                    if signal.getsignal(number) != signal.SIG_DFL:  # else one has arrived
                        self.over = True
                        _interrupt_main(number)
                    return

        with interrupted_by_sigterm() as number:
            thread = threading.Thread(target=wait, args=[number], daemon=True)
            if number is None:
                ended.set()
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()  # else its signal might arrive after the block

    @contextmanager
    def lines(self, said: Callable[[], str]) -> Iterator[None]:
        """Log ``said()`` every LINE seconds within the block."""
        ended = threading.Event()

        def speak() -> None:
            while not ended.wait(LINE):
                log.info("%s", said())

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _interrupt_main(number: signal.Signals) -> None:
    """Interrupt the main thread as Ctrl-C does, even while it waits. The signal is SIGTERM if
    possible, so that a later Ctrl-C is the first of its kind, and background processes that ignore
    SIGINT stop too.
    """
    if hasattr(signal, "pthread_kill"):
        main = threading.main_thread().ident
        signal.pthread_kill(main, number)  # type: ignore[arg-type]  # it has begun
    else:  # Windows, where os.kill would end the process
        signal.raise_signal(number)


class Speed:
    """Predicted seconds of training: multiply-adds at the mean speed of all networks trained
    before; the last ones alone may be so small that they mostly wait.
    """

    def __init__(self, cost: Cost):
        self.cost = cost
        self._done = self._took = 0.0  # multiply-adds of the networks before, and their seconds

    def seconds(self, specs: list[RunSpec]) -> float:
        """Seconds until ``specs`` and their bases are finished."""
        left = [s for s in with_bases(specs) if not self.cost.store.is_done(s)]
        if not left:
            return 0.0
        # at first the speed of one thread, from a few timed steps
        rate = self._done / self._took if self._took else self.cost.measured(left[0])[0]
        return CAUTION * self._work(left) / rate

    @contextmanager
    def measured(self, specs: list[RunSpec]) -> Iterator[None]:
        """Measure the speed of the block, which trains ``specs``, all of them unfinished."""
        work, began = self._work(specs), self.cost.now()
        yield
        if not any(map(self.cost.store.failure, specs)):  # those ended early
            self._done += work
            self._took += self.cost.now() - began

    def _work(self, specs: list[RunSpec]) -> float:
        """Multiply-adds per thread; a job uses at most one thread per network."""
        threads = self.cost.execution.threads
        return sum(self._of_job(job) / min(threads, len(job)) for job in group_into_jobs(specs))

    def _of_job(self, job: list[RunSpec]) -> float:
        dataset, classes = self.cost.dataset, list(job[0].classes)
        images = len(dataset.val_rows(classes)) + len(dataset.test_rows(classes))
        forward = sum(sum(c.macs for c in profile_layers(s.network)) for s in job)
        return macs(job, dataset, self.cost.store.step) + images * forward


def said(stage: str, clock: Clock, leader: str) -> str:
    if clock.left <= 0:
        return f"{stage}: the time is up, and this is finished first; leader {leader}"
    return f"{stage}: {duration(clock.left)} left; leader {leader}"
