"""Threads that compute the next results while one is used."""

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
    """Yield ``function(key)`` for each key in order; ``threads`` threads compute the next results,
    and ``waiting`` more calls are queued.

    If the generator ends early, threads finish the calls they have begun, but it does not wait for
    them: garbage collection may end the generator in a thread that is just being started, and then
    holds the lock without which no other thread ends.
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
