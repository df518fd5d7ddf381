"""Signals at any moment: two at once, as Ctrl-C gives them to what a sweep has started, and one
when nobody looks any more.
"""

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from analysis.html import figure
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.style import DARK, FigureSpec, Panel, styled
from tests.miniature import CPU
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.signals import SIGNALS, stop_requests
from transferability.study import cells
from transferability.study.recipe import probe_recipe
from transferability.study.spec import make_spec


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

        with (
            alarm(10),
            pytest.raises(KeyboardInterrupt),
            stop_requests() as stop,
            tracing(trace),
        ):
            signal.raise_signal(first)
        assert stop.requested
    assert line > 3, "it was sent within the handler"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_last_look_at_the_request_is_heard(number):
    """Of a wave that is finished, and closes its bar."""
    with pytest.raises(KeyboardInterrupt), stop_requests():
        signal.raise_signal(number)


@pytest.mark.parametrize(
    "make",
    [
        lambda drawing, folder: write(drawing, folder, Page()),
        lambda drawing, folder: write(drawing, folder, Page(width=3)),
        lambda drawing, _: figure(drawing, DARK),
    ],
    ids=["on a page", "for a paper", "in a report"],
)
def test_a_ctrl_c_while_a_figure_is_drawn_is_heard(interruptible, tmp_path, make):
    """Matplotlib asks for the matrix of a transform from C++, and takes any exception for a bad
    matrix. The end of a time limit, which interrupts too, came while a page was written.
    """
    asked = 0

    def trace(frame, event, _):
        nonlocal asked
        if event == "call" and frame.f_code.co_name == "__array__":
            asked += 1
            if asked <= 2:  # the second must not kill: a drawing ends soon
                signal.raise_signal(signal.SIGINT)

    drawing = FigureSpec("d", "", "", [Panel("", lambda axes: axes.plot([1, 2], marker="o"))])
    with pytest.raises(KeyboardInterrupt), tracing(trace):
        make(drawing, tmp_path)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_handlers_of_a_program_that_embeds_python_are_kept(interruptible, monkeypatch):
    """As R may: Python reports such a handler as None, and cannot set it again."""
    changed = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *what: changed.append(what))
    with styled():
        pass
    assert not changed


@pytest.fixture
def no_garbage_collection():
    """What a test leaves is collected by the code under test, and not before."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_while_garbage_is_collected_between_two_waves_is_heard(
    interruptible, no_garbage_collection, spec_of, dataset, tmp_path
):
    """Python ignores what is raised in a finalizer."""

    class Leaves:
        def __init__(self):
            self.itself = self

        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    Leaves()
    spec, store = spec_of("baseB"), Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_missing([spec], store, dataset, CPU)
    assert store.is_done(spec)


@pytest.fixture
def out_of_memory():
    """The next forward pass gets a Ctrl-C, then runs out of memory."""

    def run_out(*_) -> None:
        hook.remove()
        signal.raise_signal(signal.SIGINT)
        raise MemoryError

    hook = torch.nn.modules.module.register_module_forward_pre_hook(run_out)
    yield
    hook.remove()


@pytest.mark.parametrize("trained", [False, True])
def test_a_ctrl_c_while_memory_runs_out_stops_training(
    trained, interruptible, out_of_memory, spec_of, dataset, tmp_path
):
    """In a step, or in the evaluation after the last: instead of going on with fewer networks."""
    specs, store = [spec_of("baseA"), spec_of("baseB")], Store(tmp_path)
    for cohort in make_cohorts(specs, store, dataset, CPU) if trained else ():
        (state,) = cohort.states
        state.step = state.spec.recipe.steps
        store.lock(state.spec).release()
        store.save_checkpoint(state.spec, state.checkpoint())
    with pytest.raises(KeyboardInterrupt):
        train_missing(specs, store, dataset, CPU)
    assert not any(map(store.is_done, specs))


def test_a_ctrl_c_while_memory_runs_out_for_features_stops(
    interruptible, config, spec_of, dataset, tmp_path, request
):
    store, base = Store(tmp_path), spec_of("baseB")
    train_missing([base], store, dataset, CPU)
    probe = make_spec(
        cells.parse("B3.B"), "random-0", dataset, config.network, probe_recipe(False), 0,
        source_recipe=config.recipe,
    )  # fmt: skip
    request.getfixturevalue("out_of_memory")
    with pytest.raises(KeyboardInterrupt):
        train_missing([probe], store, dataset, replace(CPU, threads=1))
