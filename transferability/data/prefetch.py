"""Threads that compute the next ones while one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def prefetch(
    function: Callable[[K], T], keys: Iterable[K], threads: int, waiting: int = 1
) -> Iterator[T]:
    """``function(key)`` for each key in order; ``threads`` compute the next ones, and ``waiting``
    more wait.

    When it ends early the threads finish what they have begun, and nobody waits for them: garbage
    collection may end it, in a thread that is just being started, and holds the lock without which
    no other thread ends.
    """
    left = iter(keys)
    pool = ThreadPoolExecutor(threads)
    try:
        coming = deque(pool.submit(function, key) for key in islice(left, threads + waiting))
        while coming:
            done = coming.popleft().result()
            coming.extend(pool.submit(function, key) for key in islice(left, 1))
            yield done
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
