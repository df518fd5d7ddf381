"""Lines of a log while networks train: when they come, and the time left that they tell."""

import re

import pytest

from tests.miniature import CPU
from transferability.runs import progress
from transferability.runs.estimate import macs, workload
from transferability.runs.progress import Due, Progress, ProgressWriter
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.watch import time_left
from transferability.runs.wave import make_cohorts


class Clock:
    """Seconds, as a test sets them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def progress_of(points, left=4440, threads=1) -> Progress:
    return Progress([], points, left, {}, "", 0.0, threads)


def test_lines_come_soon_and_then_at_least_every_half_minute():
    clock = Clock()
    due, times = Due(clock), []
    for second in range(1, 201):
        clock.now = 100.0 + second
        if due():
            times.append(second)
    assert times == [5, 10, 20, 40, 70, 100, 130, 160, 190]
    clock.now = 1000.0
    assert due() and not due(), "a step that takes minutes is one line"


def test_the_rate_is_that_of_the_clock(spec_of, dataset, tmp_path):
    clock = Clock()
    cohorts = make_cohorts([spec_of("baseB"), spec_of("R3B")], Store(tmp_path), dataset, CPU)
    notes, states = ProgressWriter(tmp_path, cohorts, 2, clock), cohorts[0].states
    for step, now in enumerate((101.0, 103.0, 107.5)):
        clock.now = now
        for member in states:
            member.step = step + 1
        notes(step, states)
        assert notes.progress().step == step + 1
        assert (notes.progress().rates is None) == (step == 0)
    found = notes.progress()
    # two steps of two networks in 6.5 seconds; five of eight steps are left
    assert found.rates == (2 / 6.5, 24 / 6.5) and found.threads == 2
    assert found.left == 60 and found.seconds_left == pytest.approx(60 * 6.5 / 24)


def test_time_left_of_these_and_of_all(spec_of, dataset):
    """12 network-images a second; the rest by its arithmetic."""
    base, other = spec_of("baseB"), spec_of("baseB", network={"hidden": (20, 20)})
    points = [(100.0, 20, 120), (120.0, 60, 360)]

    def words(to_begin, threads=1):
        work = workload([[base]], [threads], to_begin, lambda spec: 0, dataset)
        return time_left(progress_of(points, threads=threads), work)

    assert words([]) == "2 steps/s, 6 min left"  # 4,440 / 12 = 370 s
    same = [spec_of("baseB", seed=seed) for seed in range(1, 226)]
    # 370 + 225 * 8 * 6 / 12 = 1270 s
    assert words(same) == "2 steps/s, 6 min left; of the whole command about 21 min"
    # three at a time, of which the first has used one thread: 370 + 900 / 3 = 670 s
    assert words(same, 3) == "2 steps/s, 6 min left; of the whole command about 11 min"
    assert words([other]) == "2 steps/s, 6 min left, and 1 network of a kind not measured yet"
    work = workload([[base]], [1], same, lambda spec: 0, dataset)
    assert time_left(progress_of(points[:1]), work) == "no rate yet"


def test_frozen_layers_cost_what_they_compute(spec_of, dataset):
    base, frozen = spec_of("baseB"), spec_of("R7B")
    work = workload([[base]], [1], [frozen], lambda spec: 0, dataset)
    points = [(0.0, 1, 6), (0.5, 2, 12)]
    share = macs([frozen], dataset, lambda spec: 0) / macs([base], dataset, lambda spec: 0)
    assert work.seconds([progress_of(points, left=0)]) == pytest.approx(share * 8 * 6 / 12)
    assert share < 0.6


def test_training_says_where_it_is(spec_of, dataset, trained, tmp_path, monkeypatch, caplog):
    """A line per step here; results are those of a run without them."""
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "MOST", 0.0)
    caplog.set_level("INFO")
    specs, store = [spec_of("A3B"), spec_of("A5B")], Store(tmp_path)
    train_missing(specs, store, dataset, CPU)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"to train: 3 networks of 3, into {tmp_path}"
    lines = [line for line in said if re.match(r"step \d/8: (?!top-1)", line)]
    assert [line.partition(":")[0] for line in lines] == 2 * [f"step {n}/8" for n in range(1, 9)]
    assert lines[0] == lines[8] == "step 1/8: no rate yet"
    rate = r"step \d/8: \S+ steps/s, \d+ s left"
    assert all(re.fullmatch(rate + r"; of the whole command about \d+ s", x) for x in lines[1:8])
    assert all(re.fullmatch(rate, line) for line in lines[9:]), "nothing follows"
    monkeypatch.undo()
    whole = trained(specs)
    assert [store.metrics(s) for s in specs] == [whole.metrics(s) for s in specs], "same bits"
