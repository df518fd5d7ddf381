"""Lockstep training: one batch a step trains every network of a cohort.

Lockstep is only a way to execute. On a CPU every network runs on one thread, several networks at a
time, so that its numbers depend neither on its cohort nor on the number of cores. On a GPU
``gpu_step.py`` makes the steps.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from transferability.data.batch import Batch
from transferability.training.gpu_step import GpuStep
from transferability.training.loader import TaskLoader
from transferability.training.optim import learning_rate
from transferability.training.state import PrefixCache, TrainState

# times what the last checkpoints took, at least,
# until the next: they never take more than 3% of the time
SAVING = 30


@dataclass
class Cohort:
    """Networks with one target task and the stream that feeds them."""

    stream: TaskLoader
    states: list[TrainState]


@dataclass(frozen=True)
class Execution:
    """How to execute; on a CPU in float32 nothing but ``stacked``, which is for a GPU,
    changes a result.
    """

    device: torch.device
    threads: int = 1  # networks at the same moment on a CPU
    max_networks: int | None = None
    # between checkpoints, or longer (SAVING); 0: after every step
    checkpoint_seconds: float = 120.0
    stacked: bool = False  # train networks of equal shape as one stack, see gpu_step.py
    graphs: bool = False  # replay the passes of a step as one CUDA graph
    deterministic: bool = False  # on a GPU: the same bits every time


def train(
    cohorts: list[Cohort],
    execution: Execution,
    save: Callable[[TrainState], None],
    fail: Callable[[TrainState, dict], None],
    on_step: Callable[[int, list[TrainState]], None] = lambda step, active: None,
    stop: threading.Event | None = None,
) -> None:
    """Train every network of ``cohorts`` to the end of their common recipe.

    Networks may stand at different steps (after a crash): each joins when the others have reached
    it. A network whose loss is no number any more, or explodes, leaves its cohort at the next
    evaluation or checkpoint; the others do not notice.

    Args:
        save: called with a state when it should be checkpointed.
        fail: called with a state that leaves, and where it failed.
        on_step: called after each step with the step and the states that made it.
        stop: when set, all states are saved after the step (and its evaluation) that is under way.

    Raises:
        KeyboardInterrupt: ``stop`` was set.
    """
    recipe = cohorts[0].states[0].spec.recipe
    start = min(m.step for cohort in cohorts for m in cohort.states)
    streams = [c.stream.batches(start, recipe.steps) for c in cohorts]
    saved, pause = time.monotonic(), execution.checkpoint_seconds
    for m in _members(cohorts):
        m.network.train()
    with _workers(execution) as run:
        large = execution.stacked or execution.graphs
        advance = GpuStep(execution.stacked, execution.graphs) if large else _on_threads(run)
        for step in range(start, recipe.steps):
            began = time.monotonic()
            active = [[m for m in cohort.states if m.step == step] for cohort in cohorts]
            stepped = [m for states in active for m in states]
            advance(
                [(next(batches), states) for batches, states in zip(streams, active, strict=True)]
            )
            stopping = stop is not None and stop.is_set()
            evaluating = (step + 1) % recipe.eval_every == 0 or step + 1 == recipe.steps
            saving = stopping or time.monotonic() - saved > pause
            if evaluating or saving:
                _drop_failed(cohorts, fail)
            if evaluating:
                for cohort in cohorts:  # a network that is ahead was evaluated at this step already
                    evaluate([m for m in cohort.states if m in stepped], cohort.stream, run)
            for m in stepped:
                m.seconds += (time.monotonic() - began) / len(stepped)
            on_step(step, stepped)
            if saving:
                began = time.monotonic()
                for m in _members(cohorts):
                    save(m)
                saved = time.monotonic()
                if execution.checkpoint_seconds:
                    pause = max(execution.checkpoint_seconds, SAVING * (saved - began))
            if stopping:
                raise KeyboardInterrupt
            if not _members(cohorts):
                return


def _members(cohorts: list[Cohort]) -> list[TrainState]:
    return [m for cohort in cohorts for m in cohort.states]


def _on_threads(run: Callable) -> Callable[[list[tuple[Batch, list[TrainState]]]], None]:
    """Steps in which every network runs on a thread of its own."""

    def advance(work: list[tuple[Batch, list[TrainState]]]) -> None:
        shared = [(batch, PrefixCache(batch), states) for batch, states in work]
        calls = [(m, batch, prefix) for batch, prefix, states in shared for m in states]
        # The longest first: no thread is left with a whole network at the end of a step.
        run(TrainState.train_step, sorted(calls, key=lambda call: call[0].network.frozen))

    return advance


def _drop_failed(cohorts: list[Cohort], fail: Callable[[TrainState, dict], None]) -> None:
    """Take the networks that failed out of their cohorts."""
    for cohort in cohorts:
        for m in list(cohort.states):
            if why := m.failure():
                fail(m, why)
                cohort.states.remove(m)


@dataclass
class _Score:
    correct: Tensor | int = 0
    loss: Tensor | float = 0.0
    labels: list[Tensor] = field(default_factory=list)  # what each image is taken for


def evaluate(states: list[TrainState], stream: TaskLoader, run: Callable) -> None:
    """Top-1 accuracy and mean loss of every network on the whole validation set,
    each batch shared.
    """
    scores = {id(m): _Score() for m in states}

    def score(state: TrainState, batch: Batch, shared: PrefixCache) -> None:
        with torch.no_grad():
            logits = state.logits(batch, shared)
            mine = scores[id(state)]
            mine.labels.append(logits.argmax(1))
            mine.correct = mine.correct + (mine.labels[-1] == batch.labels).sum()
            loss = F.cross_entropy(logits, batch.labels, reduction="sum")
            mine.loss = mine.loss + loss.to(state.loss_sum.dtype)

    for m in states:
        m.network.eval()
    for batch in stream.validation():
        shared = PrefixCache(batch)
        run(score, [(m, batch, shared) for m in states])
    for m in states:
        m.network.train()
        steps = m.step - (m.metrics[-1]["step"] if m.metrics else 0)
        mine = scores[id(m)]
        images = sum(map(len, mine.labels))
        m.validated = m.step, torch.cat(mine.labels)
        m.metrics.append(
            {
                "step": m.step,
                "lr": learning_rate(m.step - 1, m.spec.recipe),
                "train_loss": m.loss_sum.item() / steps,
                "val_loss": float(mine.loss) / images,
                "val_top1": int(mine.correct) / images,
            }
        )
        m.loss_sum.zero_()


def predict(cohort: Cohort, execution: Execution) -> list[dict[str, Tensor]]:
    """What each network of a cohort takes every validation image for, and every test image where
    there are any.

    Returns:
        A dictionary a network, in the order of the states: ``validation``, ``test`` -> the label,
        (images,) int16, in the order of the packed file.
    """
    parts = {"validation": cohort.stream.validation, "test": cohort.stream.test}
    found: list[dict[str, list]] = [{part: [] for part in parts} for _ in cohort.states]
    for m, own in zip(cohort.states, found, strict=True):
        step, labels = m.validated or (None, None)
        own["validation"] += [labels] if step == m.step else []  # known from the last evaluation

    def look(state: TrainState, batch: Batch, shared: PrefixCache, labels: list[Tensor]) -> None:
        with torch.no_grad():
            labels.append(state.logits(batch, shared).argmax(1))

    for m in cohort.states:
        m.network.eval()
    with _workers(execution) as run:
        for part, batches in parts.items():
            pairs = zip(cohort.states, found, strict=True)
            mine = [(m, own[part]) for m, own in pairs if not own[part]]
            for batch in batches() if mine else ():
                shared = PrefixCache(batch)
                run(look, [(m, batch, shared, labels) for m, labels in mine])
    return [
        {part: torch.cat(own).cpu().to(torch.int16) for part, own in labels.items() if own}
        for labels in found
    ]


@contextmanager
def _workers(execution: Execution) -> Iterator[Callable[[Callable, Iterable[tuple]], None]]:
    """A function that runs calls on the worker threads and waits for all of them."""
    if execution.device.type != "cpu":

        def in_turn(function: Callable, calls: Iterable[tuple]) -> None:
            for call in calls:
                function(*call)

        yield in_turn
        return

    # One intra-operation thread each: a network's sums are then added in one order on any machine.
    with ThreadPoolExecutor(
        execution.threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:

        def on_threads(function: Callable, calls: Iterable[tuple]) -> None:
            for _ in pool.map(lambda call: function(*call), calls):
                pass

        yield on_threads
