"""How long a race may take still, and how long what it trains next will."""

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
LOOKS = 0.2  # seconds between two looks at a clock
CAUTION = 1.1  # times what is predicted


class Clock:
    """The time of a command, from ``began`` on, by ``now``."""

    def __init__(self, seconds: float, began: float, now: Callable[[], float] = time.monotonic):
        self.ends, self.now = began + seconds, now
        self.page = 0.0  # what writing the page took last
        self.over = False  # whether training was ended by it

    @property
    def left(self) -> float:
        """Seconds for training: the page is to be written after it."""
        return self.ends - self.now() - 1.5 * self.page

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Within the block the time's end is like a Ctrl-C: what trains is saved, and ends. Where
        this thread hears no signals, what has begun is finished.
        """
        ended = threading.Event()

        def wait() -> None:
            while not ended.wait(min(max(self.left, 0.0), LOOKS)):
                if self.left <= 0:
                    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # one was heard already
                        self.over = True
                        _interrupt_main()
                    return

        with interrupted_by_sigterm() as heard:
            thread = threading.Thread(target=wait, daemon=True)
            if not heard:
                ended.set()
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()  # or its signal might come when nobody expects one

    @contextmanager
    def lines(self, said: Callable[[], str]) -> Iterator[None]:
        """Within the block a line of the log every half minute."""
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


def _interrupt_main() -> None:
    """Like a Ctrl-C, also where the main thread waits for something. By SIGTERM, so that a Ctrl-C
    beside it is the first of its kind, and what ignores SIGINT in the background hears it.
    """
    if hasattr(signal, "pthread_kill"):
        main = threading.main_thread().ident
        signal.pthread_kill(main, signal.SIGTERM)  # type: ignore[arg-type]  # it has begun
    else:  # Windows, where os.kill would end the process
        signal.raise_signal(signal.SIGTERM)


class Speed:
    """Seconds that networks will take: by their arithmetic, at the speed of those before them."""

    def __init__(self, cost: Cost):
        self.cost = cost
        self._rate: float | None = None

    def seconds(self, specs: list[RunSpec]) -> float:
        """Until all of ``specs``, and what they start from, are finished."""
        left = [s for s in with_bases(specs) if not self.cost.store.is_done(s)]
        if not left:
            return 0.0
        if self._rate is None:  # of one thread, from a few timed steps
            self._rate = self.cost.measured(left[0])[0]
        return CAUTION * self._work(left) / self._rate

    @contextmanager
    def measured(self, specs: list[RunSpec]) -> Iterator[None]:
        """The block trains ``specs``, of which none is finished."""
        work, began = self._work(specs), self.cost.now()
        yield
        self._rate = work / (self.cost.now() - began)

    def _work(self, specs: list[RunSpec]) -> float:
        """Multiply-adds that one thread makes, of as many as have a network."""
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
