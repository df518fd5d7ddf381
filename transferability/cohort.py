"""Lockstep training: one batch a step trains every network of a cohort.

Lockstep is only a way to execute. On a CPU every network runs on one thread, several networks at a time, so that its
numbers depend neither on its cohort nor on the number of cores.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transferability.cells import UNTRAINED
from transferability.config import RecipeConfig
from transferability.draws import seed_of
from transferability.network import Network, copy_layers
from transferability.optim import learning_rate, make_optimiser, set_rate
from transferability.spec import RunSpec
from transferability.store import Checkpoint
from transferability.stream import Batch, Stream

EXPLODED = 1e4  # a loss above it never comes back


class Member:
    """One network of a cohort: its weights, its optimiser and where it stands."""

    def __init__(self, spec: RunSpec, network: Network):
        self.spec, self.network = spec, network
        self.optimiser = make_optimiser(network, spec.cell.copied, spec.recipe)
        self.step = 0  # the next training step
        self.metrics: list[dict[str, Any]] = []
        self.seconds = 0.0  # this network's share of the time spent
        device = network.input.mean.device
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._first_bad = torch.tensor(spec.recipe.steps, device=device)  # the step at which the loss went wrong
        self._digests = _prefix_digests(network)

    def prefix_key(self, n: int) -> tuple:
        """What the output of the frozen layers 1..n depends on: their weights and, in training, own dropout."""
        own = self.network.training and self.network.drops_within(n)
        return self._digests[n], self.spec.id if own else None

    def train_step(self, batch: Batch, shared: "SharedPrefix") -> None:
        """Forward from the frozen prefix, backward down to it, one step of SGD."""
        recipe = self.spec.recipe
        self.network.begin_step(self.step)
        logits = self.logits(batch, shared)
        loss = F.cross_entropy(logits, batch.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        set_rate(self.optimiser, self.step, recipe)
        self.optimiser.step()
        self.loss_sum += loss.detach()
        bad = ~(loss.detach() < EXPLODED)  # true of NaN too; kept on the device, so that no step waits for it
        self._first_bad = torch.where(bad, self._first_bad.clamp(max=self.step), self._first_bad)
        self.step += 1

    def failure(self) -> dict[str, Any] | None:
        """Where the loss stopped to be a number, or exploded; None while all is well."""
        step = int(self._first_bad)
        if step >= self.spec.recipe.steps:
            return None
        return {"step": step, "lr": learning_rate(step, self.spec.recipe), "last": (self.metrics or [None])[-1]}

    def logits(self, batch: Batch, shared: "SharedPrefix") -> Tensor:
        """(B, outputs) float32."""
        with _autocast(batch, self.spec.recipe):
            x = shared(self, self.network.frozen)
            for layer in self.network.layers[self.network.frozen :]:
                x = layer(x)
        return x.float()

    def checkpoint(self) -> Checkpoint:
        tensors = dict(self.network.state_dict())
        for name, parameter in self.network.named_parameters():
            if parameter in self.optimiser.state:
                tensors[f"momentum.{name}"] = self.optimiser.state[parameter]["momentum_buffer"]
        return Checkpoint({**tensors, "loss_sum": self.loss_sum}, self.step, self.metrics, self.seconds)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where ``checkpoint`` was taken."""
        tensors = dict(checkpoint.tensors)
        self.loss_sum.copy_(tensors.pop("loss_sum"))
        for name, parameter in self.network.named_parameters():
            if (momentum := tensors.pop(f"momentum.{name}", None)) is not None:
                buffer = torch.empty_like(parameter).copy_(momentum)
                self.optimiser.state[parameter]["momentum_buffer"] = buffer
        self.network.load_state_dict(tensors, strict=True)
        self.step, self.metrics, self.seconds = checkpoint.step, list(checkpoint.metrics), checkpoint.seconds
        self._digests = _prefix_digests(self.network)


class SharedPrefix:
    """Outputs of frozen layers for one batch, computed once for all networks with the same frozen weights.

    Depth 0 is the input after mean subtraction, which is never trained: every network shares it.
    """

    def __init__(self, batch: Batch):
        self._batch = batch
        self._outputs: dict[tuple, Tensor] = {}
        self._locks: dict[tuple, threading.Lock] = {}

    def __call__(self, member: Member, n: int) -> Tensor:
        """The output of layers 1..n of ``member``, without a gradient."""
        key = member.prefix_key(n)
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._outputs:
                with torch.no_grad():
                    below = self._batch if n == 0 else self(member, n - 1)
                    layer = member.network.input if n == 0 else member.network.layers[n - 1]
                    self._outputs[key] = layer(below)
            return self._outputs[key]


@dataclass
class Cohort:
    """Networks with one target task and the stream that feeds them."""

    stream: Stream
    members: list[Member]


@dataclass(frozen=True)
class Execution:
    """How to execute; none of it changes a result on a CPU in float32."""

    device: torch.device
    threads: int = 1  # networks at the same moment on a CPU
    max_networks: int | None = None
    checkpoint_seconds: float = 120.0


def initial_network(spec: RunSpec, mean: np.ndarray, source: dict[str, Tensor] | None = None) -> Network:
    """The network of ``spec`` at step 0, on the CPU.

    Fresh layers are drawn under (seed, cell, classes); the frozen layers of a random-filter network under
    (seed, "untrained", classes), the same for every n: R1..R7 are chops of one untrained network, as A1B..A7B are of
    one baseA.

    Args:
        mean: what the network subtracts, (H, W, 3) or (3,); a copied layer 1 brings its own.
        source: the state of the base whose layers are copied.
    """
    task, cell = seed_of(*spec.classes), spec.cell
    network = Network(spec.network, spec.network.outputs, mean, (spec.seed, str(cell), task))
    if cell.source == UNTRAINED:
        network.fresh(range(1, cell.frozen + 1), (spec.seed, "untrained", task))
    if cell.copied:
        copy_layers(source, network, cell.copied)
    network.freeze(cell.frozen)
    return network


def build_member(
    spec: RunSpec, stream: Stream, source: dict[str, Tensor] | None, checkpoint: Checkpoint | None
) -> Member:
    """The network of ``spec`` with its optimiser, at step 0 or where its checkpoint was taken."""
    mean = stream.mean_image if spec.network.mean == "image" else stream.mean_image.mean(axis=(0, 1))
    member = Member(spec, initial_network(spec, mean, source).to(stream.device))
    if checkpoint:
        member.restore(checkpoint)
    return member


def train(
    cohorts: list[Cohort],
    execution: Execution,
    save: Callable[[Member], None],
    fail: Callable[[Member, dict], None],
    on_step: Callable[[int, list[Member]], None] = lambda step, active: None,
    stop: threading.Event | None = None,
) -> None:
    """Train every network of ``cohorts`` to the end of their common recipe.

    Networks may stand at different steps (after a crash): each joins when the others have reached it. A network whose
    loss is no number any more, or explodes, leaves its cohort at the next evaluation or checkpoint; the others do not
    notice.

    Args:
        save: called with a member when it should be checkpointed.
        fail: called with a member that leaves, and where it failed.
        on_step: called after each step with the step and the members that made it.
        stop: when set, all members are saved after the step (and its evaluation) that is under way.

    Raises:
        KeyboardInterrupt: ``stop`` was set.
    """
    recipe = cohorts[0].members[0].spec.recipe
    start = min(m.step for cohort in cohorts for m in cohort.members)
    streams = [c.stream.batches(start, recipe.steps) for c in cohorts]
    saved = time.monotonic()
    for m in _members(cohorts):
        m.network.train()
    with _workers(execution) as run:
        for step in range(start, recipe.steps):
            began = time.monotonic()
            stepped = _train_step(cohorts, [next(batches) for batches in streams], step, run)
            stopping = stop is not None and stop.is_set()
            evaluating = (step + 1) % recipe.eval_every == 0 or step + 1 == recipe.steps
            saving = stopping or time.monotonic() - saved > execution.checkpoint_seconds
            if evaluating or saving:
                _drop_failed(cohorts, fail)
            if evaluating:
                for cohort in cohorts:  # a network that is ahead was evaluated at this step already
                    _evaluate([m for m in cohort.members if m in stepped], cohort.stream, run)
            for m in stepped:
                m.seconds += (time.monotonic() - began) / len(stepped)
            on_step(step, stepped)
            if saving:
                for m in _members(cohorts):
                    save(m)
                saved = time.monotonic()
            if stopping:
                raise KeyboardInterrupt
            if not _members(cohorts):
                return


def _members(cohorts: list[Cohort]) -> list[Member]:
    return [m for cohort in cohorts for m in cohort.members]


def _train_step(cohorts: list[Cohort], batches: list[Batch], step: int, run: Callable) -> list[Member]:
    """One step of every network that stands at ``step``; returns them."""
    active = []
    for cohort, batch in zip(cohorts, batches, strict=True):
        shared = SharedPrefix(batch)
        active += [(m, batch, shared) for m in cohort.members if m.step == step]
    # The longest first: no thread is left with a whole network at the end of a step.
    active.sort(key=lambda work: work[0].network.frozen)
    run(Member.train_step, active)
    return [m for m, _, _ in active]


def _drop_failed(cohorts: list[Cohort], fail: Callable[[Member, dict], None]) -> None:
    """Take the networks that failed out of their cohorts."""
    for cohort in cohorts:
        for m in list(cohort.members):
            if why := m.failure():
                fail(m, why)
                cohort.members.remove(m)


@dataclass
class _Score:
    correct: Tensor | int = 0
    loss: Tensor | float = 0.0
    images: int = 0


def _evaluate(members: list[Member], stream: Stream, run: Callable) -> None:
    """Top-1 accuracy and mean loss of every network on the whole validation set, each batch shared."""
    scores = {id(m): _Score() for m in members}

    def score(member: Member, batch: Batch, shared: SharedPrefix) -> None:
        with torch.no_grad():
            logits = member.logits(batch, shared)
            mine = scores[id(member)]
            mine.correct = mine.correct + (logits.argmax(1) == batch.labels).sum()
            mine.loss = mine.loss + F.cross_entropy(logits, batch.labels, reduction="sum").double()
            mine.images += len(batch)

    for m in members:
        m.network.eval()
    for batch in stream.validation():
        shared = SharedPrefix(batch)
        run(score, [(m, batch, shared) for m in members])
    for m in members:
        m.network.train()
        steps = m.step - (m.metrics[-1]["step"] if m.metrics else 0)
        mine = scores[id(m)]
        m.metrics.append(
            {
                "step": m.step,
                "lr": learning_rate(m.step - 1, m.spec.recipe),
                "train_loss": m.loss_sum.item() / steps,
                "val_loss": float(mine.loss) / mine.images,
                "val_top1": int(mine.correct) / mine.images,
            }
        )
        m.loss_sum.zero_()


@contextmanager
def _workers(execution: Execution) -> Iterator[Callable[[Callable, Iterable[tuple]], None]]:
    """A function that runs calls on the worker threads and waits for all of them."""
    if execution.device.type != "cpu":
        yield lambda function, calls: [function(*call) for call in calls] and None
        return
    # One intra-operation thread each: a network's sums are then added in one order on any machine.
    with ThreadPoolExecutor(execution.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield lambda function, calls: list(pool.map(lambda call: function(*call), calls)) and None


def _autocast(batch: Batch, recipe: RecipeConfig) -> torch.autocast:
    enabled = recipe.precision == "bf16"
    return torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=enabled)


def _prefix_digests(network: Network) -> list[bytes]:
    """For each depth 0..frozen, a digest of everything at or below it, settings that are no tensors among it."""
    running, out = hashlib.sha256(repr(replace(network.config, name="")).encode()), []
    for module in (network.input, *network.layers[: network.frozen]):
        for name, tensor in module.state_dict().items():
            running.update(name.encode())
            running.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        out.append(running.digest())
    return out
