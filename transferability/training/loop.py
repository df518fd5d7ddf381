"""Lockstep training: one batch per step trains every network of a cohort.

Lockstep affects only the execution. On a CPU every network runs on one thread, several networks at
a time, so results depend neither on the cohort nor on the number of cores. On a GPU
``gpu_step.py`` runs the steps.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from transferability.data.batch import Batch
from transferability.signals import StopRequest
from transferability.training.execution import Execution
from transferability.training.gpu_step import GpuStep
from transferability.training.loader import TaskLoader
from transferability.training.optim import learning_rate
from transferability.training.state import PrefixCache, TrainState

# The pause after checkpoints is at least SAVING times as long as writing them took, so they take
# about 3% of the time at most.
SAVING = 30


@dataclass
class Cohort:
    """Networks with one target task, and their stream of batches."""

    stream: TaskLoader
    states: list[TrainState]


def train(
    cohorts: list[Cohort],
    execution: Execution,
    save: Callable[[TrainState], None],
    fail: Callable[[TrainState, dict], None],
    on_step: Callable[[int, list[TrainState]], None] = lambda step, active: None,
    stop: StopRequest | None = None,
) -> None:
    """Train every network of ``cohorts`` to the end of their common recipe.

    Networks may be at different steps (after a crash): each joins when the others reach its step. A
    network whose loss diverges or is NaN leaves its cohort at the next evaluation or checkpoint,
    without effect on the others.

    Args:
        save: called with each state that is to be checkpointed.
        fail: called with each state that leaves, and where it failed.
        on_step: called after each step with the step and the states that took part.
        stop: once requested, all states are saved after the current step (and its evaluation).

    Raises:
        KeyboardInterrupt: ``stop`` was requested.
    """
    recipe = cohorts[0].states[0].spec.recipe
    start = min(state.step for state in _states(cohorts))
    streams = [cohort.stream.batches(start, recipe.steps) for cohort in cohorts]
    checkpoints = _Checkpoints(execution.checkpoint_seconds, save)
    for state in _states(cohorts):
        state.network.train()
    with _workers(execution) as run:
        large = execution.stacked or execution.graphs
        advance = GpuStep(execution.stacked, execution.graphs) if large else _on_threads(run)
        for step in range(start, recipe.steps):
            began = time.monotonic()
            active = [[state for state in c.states if state.step == step] for c in cohorts]
            stepped = [state for states in active for state in states]
            advance([(next(batches), own) for batches, own in zip(streams, active, strict=True)])
            stopping = stop is not None and stop.requested
            evaluating = (step + 1) % recipe.eval_every == 0 or step + 1 == recipe.steps
            saving = stopping or checkpoints.due()
            if evaluating or saving:
                _drop_failed(cohorts, fail)
            if evaluating:
                for cohort in cohorts:  # a network that is ahead has been evaluated at this step
                    due = [state for state in cohort.states if state in stepped]
                    evaluate(due, cohort.stream, run)
            for state in stepped:
                state.seconds += (time.monotonic() - began) / len(stepped)
            on_step(step, stepped)
            if saving:
                checkpoints.save(_states(cohorts))
            if stopping:
                raise KeyboardInterrupt
            if not _states(cohorts):
                return


class _Checkpoints:
    """Save states ``seconds`` after the last time, or after SAVING times its duration if longer.

    With ``seconds=0``, states are saved after every step.
    """

    def __init__(self, seconds: float, save: Callable[[TrainState], None]):
        self.seconds, self._save = seconds, save
        self._saved, self._pause = time.monotonic(), seconds

    def due(self) -> bool:
        return time.monotonic() - self._saved > self._pause

    def save(self, states: list[TrainState]) -> None:
        began = time.monotonic()
        for state in states:
            self._save(state)
        self._saved = time.monotonic()
        if self.seconds:
            self._pause = max(self.seconds, SAVING * (self._saved - began))


def _states(cohorts: list[Cohort]) -> list[TrainState]:
    return [state for cohort in cohorts for state in cohort.states]


def _on_threads(run: Callable) -> Callable[[list[tuple[Batch, list[TrainState]]]], None]:
    """Steps in which every network runs on one worker thread."""

    def advance(work: list[tuple[Batch, list[TrainState]]]) -> None:
        shared = [(batch, PrefixCache(batch), states) for batch, states in work]
        calls = [(state, batch, prefix) for batch, prefix, states in shared for state in states]
        # The longest first, so that no thread starts a long one at the end of a step.
        run(TrainState.train_step, sorted(calls, key=lambda call: call[0].network.frozen))

    return advance


def _drop_failed(cohorts: list[Cohort], fail: Callable[[TrainState, dict], None]) -> None:
    """Remove failed networks from their cohorts."""
    for cohort in cohorts:
        for state in list(cohort.states):
            if why := state.failure():
                fail(state, why)
                cohort.states.remove(state)


@dataclass
class _Score:
    correct: Tensor | int = 0
    loss: Tensor | float = 0.0
    labels: list[Tensor] = field(default_factory=list)  # predicted, one tensor per batch


def evaluate(states: list[TrainState], stream: TaskLoader, run: Callable) -> None:
    """Append top-1 accuracy and mean loss on the validation set to the metrics of every network.

    Each batch is read once for all networks.
    """
    scores = {id(state): _Score() for state in states}

    def score(state: TrainState, batch: Batch, shared: PrefixCache) -> None:
        with torch.no_grad():
            logits = state.logits(batch, shared)
            mine = scores[id(state)]
            mine.labels.append(logits.argmax(1))
            mine.correct = mine.correct + (mine.labels[-1] == batch.labels).sum()
            loss = F.cross_entropy(logits, batch.labels, reduction="sum")
            mine.loss = mine.loss + loss.to(state.loss_sum.dtype)

    for state in states:
        state.network.eval()
    for batch in stream.validation():
        shared = PrefixCache(batch)
        run(score, [(state, batch, shared) for state in states])
    for state in states:
        state.network.train()
        steps = state.step - (state.metrics[-1]["step"] if state.metrics else 0)
        mine = scores[id(state)]
        images = sum(map(len, mine.labels))
        state.validated = state.step, torch.cat(mine.labels)
        state.metrics.append(
            {
                "step": state.step,
                "lr": learning_rate(state.step - 1, state.spec.recipe),
                "train_loss": state.loss_sum.item() / steps,
                "val_loss": float(mine.loss) / images,
                "val_top1": int(mine.correct) / images,
            }
        )
        state.loss_sum.zero_()


def predict(cohort: Cohort, execution: Execution) -> list[dict[str, Tensor]]:
    """Predict the class of every validation and test image with each network of a cohort.

    Returns:
        One dictionary per network, in the order of the states: ``validation`` and, if there are
        test images, ``test`` -> predicted labels, (images,) int16, in the order of the packed file.
    """
    subsets = {"validation": cohort.stream.validation, "test": cohort.stream.test}
    found: list[dict[str, list]] = [{subset: [] for subset in subsets} for _ in cohort.states]
    for state, own in zip(cohort.states, found, strict=True):
        step, labels = state.validated or (None, None)
        own["validation"] += (
            [labels] if step == state.step else []
        )  # known from the last evaluation

    def look(state: TrainState, batch: Batch, shared: PrefixCache, labels: list[Tensor]) -> None:
        with torch.no_grad():
            labels.append(state.logits(batch, shared).argmax(1))

    for state in cohort.states:
        state.network.eval()
    with _workers(execution) as run:
        for subset, batches in subsets.items():
            pairs = zip(cohort.states, found, strict=True)
            mine = [(state, own[subset]) for state, own in pairs if not own[subset]]
            for batch in batches() if mine else ():
                shared = PrefixCache(batch)
                run(look, [(state, batch, shared, labels) for state, labels in mine])
    return [
        {subset: torch.cat(own).cpu().to(torch.int16) for subset, own in labels.items() if own}
        for labels in found
    ]


@contextmanager
def _workers(execution: Execution) -> Iterator[Callable[[Callable, Iterable[tuple]], None]]:
    """Yield a function that runs calls on the worker threads and waits for all of them."""
    if execution.device.type != "cpu":

        def in_turn(function: Callable, calls: Iterable[tuple]) -> None:
            for call in calls:
                function(*call)

        yield in_turn
        return

    # One intra-operation thread each: the order of sums is then the same on any machine.
    with ThreadPoolExecutor(
        execution.threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:

        def on_threads(function: Callable, calls: Iterable[tuple]) -> None:
            for _ in pool.map(lambda call: function(*call), calls):
                pass

        yield on_threads
