"""Threads compute the next ones: in order, not too far ahead, and none after an error."""

import threading
import time

import pytest

from transferability.data.prefetch import prefetch


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_their_keys(threads):
    turns = {key: threading.Event() for key in range(6)}

    def late(key: int) -> int:
        if threads > 1 and key % 2 == 0:
            turns[key + 1].wait(10)  # the next one ends before it
        turns[key].set()
        return key**2

    assert list(prefetch(late, range(6), threads)) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize(("threads", "waiting"), [(1, 1), (2, 3)])
def test_keys_are_asked_for_only_so_far_ahead(threads, waiting):
    asked = []

    def keys():
        for key in range(20):
            asked.append(key)
            yield key

    for done, _ in enumerate(prefetch(str, keys(), threads, waiting), 1):
        assert len(asked) == min(20, threads + waiting + done)


def test_an_error_ends_it_and_what_waits_is_not_begun():
    begun = []

    def fails(key: int) -> int:
        begun.append(key)
        if key == 0:
            raise ValueError("the first")
        time.sleep(0.01)  # half a second for all that wait
        return key

    with pytest.raises(ValueError, match="the first"):
        list(prefetch(fails, range(100), 1, waiting=50))
    assert len(begun) < 51


def test_closing_waits_for_no_thread():
    """Garbage collection closes what nobody reads to its end, in whatever thread it happens: in one
    that holds the lock with which threads end, waiting for another would never end.
    """
    held = threading.Event()
    results = prefetch(lambda key: key and held.wait(60), range(9), 1)
    assert next(results) == 0
    closing = threading.Thread(target=results.close, daemon=True)
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    held.set()
    assert ended
