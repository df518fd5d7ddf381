"""The training state of one network of a cohort, and its training step."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transferability.data.batch import Batch
from transferability.fingerprint import to_dict
from transferability.networks.config import NetworkConfig
from transferability.networks.modules import BatchNorm, channels_subtracted
from transferability.networks.sequential import SequentialNetwork, copy_layers
from transferability.rng import derive_seed
from transferability.study.cells import UNTRAINED
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import RunSpec
from transferability.training.checkpoint import Checkpoint
from transferability.training.loader import TaskLoader
from transferability.training.optim import create_optimizer, learning_rate, set_learning_rate

DIVERGED_LOSS = 1e4  # training does not recover from a higher loss


# the optimizer's state of a parameter: torch's names -> names in checkpoints
_SAVED = {
    "momentum_buffer": "momentum",
    "exp_avg": "exp_avg",
    "exp_avg_sq": "exp_avg_sq",
    "step": "steps_of",
}


class TrainState:
    """One network of a cohort, with its optimizer, step and metrics."""

    def __init__(self, spec: RunSpec, network: SequentialNetwork):
        self.spec, self.network = spec, network
        self.optimizer = create_optimizer(network, _copied(spec, network), spec.recipe)
        self.step = 0  # the next training step
        self.metrics: list[dict[str, Any]] = []
        self.seconds = 0.0  # this network's share of the time spent
        device = network.input.mean.device
        # MPS has no float64
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros((), dtype=precise, device=device)
        self.loss: Tensor  # of the last step
        # the step of the newest evaluation, and the predicted label of each validation image
        self.validated: tuple[int, Tensor] | None = None
        # the step at which the loss became NaN or diverged; recipe.steps if it did not
        self.diverged_at = torch.tensor(spec.recipe.steps, device=device)
        self._digests = _prefix_digests(network)

    def prefix_key(self, n: int) -> tuple:
        """A key of all that the output of frozen layers 1..n depends on: their weights and, if
        active, this network's dropout.
        """
        return self._digests[n], self.spec.id if self.network.has_active_dropout(n) else None

    def train_step(self, batch: Batch, shared: "PrefixCache") -> None:
        """Run forward from the frozen prefix, backward down to it, and one optimizer step."""
        self.network.reseed_dropout(self.step)
        self.gradients(batch, shared)
        set_learning_rate(self.optimizer, self.step)
        self.optimizer.step()
        record_losses(self.loss, self.loss_sum, self.diverged_at, self.step)
        self.step += 1

    def gradients(self, batch: Batch, shared: "PrefixCache") -> None:
        """Compute the loss and the gradient of every trained parameter."""
        smoothing = self.spec.recipe.label_smoothing
        logits = self.logits(batch, shared)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.loss = loss.detach()

    def failure(self) -> dict[str, Any] | None:
        """Step, learning rate and last evaluation if the loss diverged or became NaN, else None."""
        step = int(self.diverged_at)
        if step >= self.spec.recipe.steps:
            return None
        last = self.metrics[-1] if self.metrics else None
        return {"step": step, "lr": learning_rate(step, self.spec.recipe), "last": last}

    def logits(self, batch: Batch, shared: "PrefixCache") -> Tensor:
        """The logits of a batch, (B, outputs) float32."""
        with autocast(batch, self.spec.recipe):
            x = shared.outputs(self, self.network.frozen)
            for layer in self.network.layers[self.network.frozen :]:
                x = layer(x)
        return x.float()

    def checkpoint(self) -> Checkpoint:
        tensors = dict(self.network.state_dict())
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:  # recipe.momentum=0 has no buffer
                    tensors[f"{_SAVED[key]}.{name}"] = value
        return Checkpoint(
            {**tensors, "loss_sum": self.loss_sum}, self.step, self.metrics, self.seconds
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the exact state in which ``checkpoint`` was taken."""
        tensors = dict(checkpoint.tensors)
        self.loss_sum.copy_(tensors.pop("loss_sum"))
        for name, parameter in self.network.named_parameters():
            for key, saved in _SAVED.items():
                if (value := tensors.pop(f"{saved}.{name}", None)) is not None:
                    like = torch.empty_like(parameter) if value.dim() else parameter.new_empty(())
                    self.optimizer.state[parameter][key] = like.copy_(value)
        self.network.load_state_dict(tensors, strict=True)
        self.step, self.metrics, self.seconds = (
            checkpoint.step,
            list(checkpoint.metrics),
            checkpoint.seconds,
        )
        self._digests = _prefix_digests(self.network)


def record_losses(loss: Tensor, loss_sum: Tensor, diverged_at: Tensor, step: int) -> None:
    """Add the losses of ``step`` to ``loss_sum``, and record in ``diverged_at`` which are NaN or
    diverged.

    In place and on the device, so that no step waits. The tensors have one shape, that of the
    losses of one or several networks.
    """
    loss_sum += loss
    bad = ~(loss < DIVERGED_LOSS)  # also true for NaN
    diverged_at.copy_(torch.where(bad, diverged_at.clamp(max=step), diverged_at))


class PrefixCache:
    """Outputs of frozen layers for one batch, computed once for all networks with the same
    frozen weights.

    Depth 0 is the input after mean subtraction, shared by networks with the same settings and mean.
    """

    def __init__(self, batch: Batch):
        self._batch = batch
        self._outputs: dict[tuple, Tensor] = {}
        self._locks: dict[tuple, threading.Lock] = {}

    def outputs(self, state: TrainState, depth: int) -> Tensor:
        """Output of layers 1..``depth`` of ``state``, without a gradient; depth 0 is the input."""
        key = state.prefix_key(depth)
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._outputs:
                self._outputs[key] = self._compute(state, depth)
            return self._outputs[key]

    @torch.no_grad()
    def _compute(self, state: TrainState, depth: int) -> Tensor:
        if depth == 0:
            return state.network.input(self._batch)
        return state.network.layers[depth - 1](self.outputs(state, depth - 1))


def initial_network(
    spec: RunSpec, mean: np.ndarray, source: dict[str, Tensor] | None = None
) -> SequentialNetwork:
    """Create the network of ``spec`` at step 0, on the CPU.

    Randomly initialized layers are drawn with the key (seed, cell, classes). The frozen layers of a
    random-filter network are drawn with (seed, "untrained", classes) for every n: R1..R7 are chops
    of one untrained network, as A1B..A7B are of one baseA.

    Args:
        mean: the mean to subtract, (H, W, 3) or (3,); with copied layers, replaced by the source's.
        source: the state dict of the network whose layers are copied.
    """
    task, cell = derive_seed(*spec.classes), spec.cell
    network = SequentialNetwork(spec.network, mean, (spec.seed, str(cell), task))
    if cell.source == UNTRAINED:
        network.init_weights(range(1, cell.frozen + 1), (spec.seed, "untrained", task))
    if cell.copied:
        copy_layers(source or {}, network, _copied(spec, network))
        network.still = _copied(spec, network) if spec.recipe.keep_statistics else 0
    network.freeze(cell.frozen)
    return network


def _copied(spec: RunSpec, network: SequentialNetwork) -> int:
    """The number of layers copied from the source: in a second phase all, including the head."""
    return len(network.layers) if spec.cell.again else spec.cell.copied


def build_state(
    spec: RunSpec,
    stream: TaskLoader,
    source: dict[str, Tensor] | None,
    checkpoint: Checkpoint | None,
) -> TrainState:
    """Build the network and optimizer of ``spec``, at step 0 or restored from its checkpoint."""
    network = initial_network(spec, _mean(spec.network, stream), source).to(stream.device)
    if spec.cell.source == UNTRAINED and checkpoint is None:
        measure_statistics(network, stream)
    state = TrainState(spec, network)
    if checkpoint:
        state.restore(checkpoint)
    return state


def _mean(network: NetworkConfig, stream: TaskLoader) -> np.ndarray:
    """The mean to subtract if layer 1 is trained from scratch."""
    if (mean := channels_subtracted(network)) is not None:
        return mean
    image = stream.mean_image
    return image if network.mean == "image" else image.mean(axis=(0, 1))


def measure_statistics(network: SequentialNetwork, stream: TaskLoader, batches: int = 20) -> None:
    """Set the BatchNorm statistics of frozen, untrained layers to those of the task's images.

    Trained layers already have statistics. Untrained layers would keep their initial ones (mean 0,
    variance 1) and normalize nothing. The statistics are means over the first training batches, in
    float32. Without BatchNorm nothing is changed.
    """
    frozen = network.layers[: network.frozen]
    norms = [m for m in frozen.modules() if isinstance(m, BatchNorm)]
    if not norms:
        return
    training, usual = network.training, norms[0].momentum
    network.eval()  # without dropout
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        norm.train()
    # as in training: the order of sums is then the same on any machine
    with torch.no_grad(), one_thread():
        for step in range(batches):
            x = network.input(stream.batch(step))
            for layer in frozen:
                x = layer(x)
    for norm in norms:
        norm.momentum = usual
    network.train(training)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, run this thread's operations on one intra-operation thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def autocast(batch: Batch, recipe: RecipeConfig) -> torch.autocast:
    enabled = recipe.precision == "bf16"
    return torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=enabled)


def _prefix_digests(network: SequentialNetwork) -> list[bytes]:
    """For each depth 0..frozen, a digest of the network's settings and all tensors up to it."""
    settings = to_dict(network.config.whole, labels=False)
    running, out = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()), []
    for module in (network.input, *network.layers[: network.frozen]):
        for name, tensor in module.state_dict().items():
            running.update(name.encode())
            running.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        out.append(running.digest())
    return out
