"""A training step on a GPU: a few large operations instead of thousands of small ones.

Four ways to execute the steps of ``state.py``: networks of equal shape are stacked and trained as
one; the forward and backward passes of all networks are captured once and replayed as one CUDA
graph; small networks run in parallel branches of the graph; one optimizer step updates all
networks.
"""

import logging
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from transferability.data.batch import Batch
from transferability.errors import reason
from transferability.networks.compiled import fused
from transferability.networks.sequential import NORMALIZATION, parameter_kinds
from transferability.training.devices import cuda_stream, is_out_of_memory
from transferability.training.optim import optimizer_of, set_learning_rate
from transferability.training.state import PrefixCache, TrainState, autocast, record_losses

log = logging.getLogger(__name__)
Work = list[
    tuple[Batch, list[TrainState]]
]  # the batch of each stream, and the networks that it trains
# passes before a capture: kernels are compiled and chosen, libraries allocate their memory
WARM_UP = 3
# networks that run in parallel in a graph, if a batch has at most SMALL pixels per channel: one
# network's kernel leaves most of a GPU idle
BRANCHES, SMALL = 8, 1 << 20


class GpuStep:
    """Run training steps. Stacks and graphs are reused until the set of networks changes."""

    def __init__(self, stacked: bool, graphs: bool):
        self.stacked, self.graphs = stacked, graphs
        self._networks: list[list[int]] = []
        self._step: _CapturedStep | None = None

    def __call__(self, work: Work) -> None:
        """Run one training step of every network of ``work``.

        All networks are at the same step of one recipe.
        """
        networks = [[id(state) for state in states] for _, states in work]
        if not any(networks):  # networks that were behind have failed; the rest are at later steps
            return
        if self._step is None or networks != self._networks:
            self._step = None  # free its memory first
            self._networks, self._step = networks, _CapturedStep(work, self.stacked, self.graphs)
        self._step([batch for batch, _ in work])


class _CapturedStep:
    """The step of one set of networks."""

    def __init__(self, work: Work, stacked: bool, graphs: bool):
        self.states = [state for _, states in work for state in states]
        self.stacks = [_stacks(states, stacked) for _, states in work]
        self.update = JointOptimizer(self.states)
        self.inputs = [_copy(batch) for batch, _ in work] if graphs else []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.branches = BRANCHES if graphs and all(_is_small(batch) for batch, _ in work) else 1

    def __call__(self, batches: list[Batch]) -> None:
        for state in self.states:
            state.network.reseed_dropout(state.step)
        if self.inputs and self.graph is None:
            self.graph = self._capture(self.inputs[0].images.device)
            if self.graph is None:
                self.inputs, self.branches = [], 1
        if self.graph is None:
            self.gradients(batches)
        else:
            self.read(batches)
            self.graph.replay()
        self.update()

    def read(self, batches: list[Batch]) -> None:
        """Copy ``batches`` into the tensors that the graph reads."""
        for mine, batch in zip(self.inputs, batches, strict=True):
            for own, given in zip(_tensors(mine), _tensors(batch), strict=True):
                own.copy_(given, non_blocking=True)

    def captured(self) -> None:
        """Run the passes over ``inputs`` that a graph captures."""
        # copies have no cached crops, so that the graph computes them
        self.gradients([replace(batch) for batch in self.inputs])

    def gradients(self, batches: list[Batch]) -> None:
        """Compute loss and gradients of every network."""
        for batch, stacks in zip(batches, self.stacks, strict=True):
            shared = PrefixCache(batch)
            if self.branches == 1:
                for stack in stacks:
                    stack.gradients(batch, shared)
            else:
                self._on_branches(stacks, batch, shared)

    def _on_branches(
        self, stacks: "list[TrainState | StackedNetworks]", batch: Batch, shared: PrefixCache
    ) -> None:
        """Compute loss and gradients on several streams, which wait only for shared outputs."""
        device = batch.images.device
        streams = [cuda_stream(device, f"branch {i}") for i in range(self.branches)]
        trunk = torch.cuda.current_stream(device)
        for stack in stacks:
            for state in stack.states if isinstance(stack, StackedNetworks) else [stack]:
                with autocast(batch, state.spec.recipe):
                    shared.outputs(state, state.network.frozen)
        for stream in streams:
            stream.wait_stream(trunk)
        for i, stack in enumerate(stacks):
            with torch.cuda.stream(streams[i % self.branches]):
                stack.gradients(batch, shared)
        for stream in streams:
            trunk.wait_stream(stream)

    def _capture(self, device: torch.device) -> torch.cuda.CUDAGraph | None:
        """Capture the passes as one graph, which reads ``inputs`` and writes every network's
        ``loss`` and gradients. Return None if a network synchronizes with the host within a step.
        """
        # BatchNorm statistics change in the passes before the capture
        statistics = [(b, b.clone()) for state in self.states for b in state.network.buffers()]
        side, graph = cuda_stream(device, "capture"), torch.cuda.CUDAGraph()
        with torch.cuda.device(device):  # graphs belong to the current device
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.captured()
            torch.cuda.current_stream().wait_stream(side)
            for buffer, before in statistics:
                buffer.copy_(before)
            for state in self.states:
                state.optimizer.zero_grad(set_to_none=True)
            usual = torch.cuda.current_stream()
            try:
                # The thread that reads the next batch may allocate memory during the capture.
                with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                    self.captured()
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                torch.cuda.set_stream(usual)  # a failed capture does not restore the stream
                why = error.__context__ or error  # ending a failed capture raises another error
                log.warning("steps are not captured as a CUDA graph: %s", reason(why))
                return None
        return graph


def _is_small(batch: Batch) -> bool:
    return batch.images.is_cuda and len(batch) * batch.crop**2 <= SMALL


def _tensors(batch: Batch) -> list[Tensor]:
    """The tensors that a batch was constructed from."""
    return [
        value
        for f in fields(batch)
        if f.init and isinstance(value := getattr(batch, f.name), Tensor)
    ]


def _copy(batch: Batch) -> Batch:
    values: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch) if f.init}
    values |= {k: v.clone() for k, v in values.items() if isinstance(v, Tensor)}
    return Batch(**values)


def _stacks(states: list[TrainState], stacked: bool) -> "list[TrainState | StackedNetworks]":
    """Stack networks of equal shape; networks without frozen layers also need the same input."""
    if not stacked:
        return list(states)
    alike: dict[tuple, list[TrainState]] = {}
    for state in states:
        network, smoothing = state.network, state.spec.recipe.label_smoothing
        same_input = None if network.frozen else state.prefix_key(0)
        key = (network.frozen, network.still, state.spec.network, same_input, smoothing)
        alike.setdefault(key, []).append(state)
    return [StackedNetworks(some) if len(some) > 1 else some[0] for some in alike.values()]


class StackedNetworks:
    """Networks with equally many frozen layers, whose trained layers run as one network with an
    additional leading dimension.

    Their parameters and buffers become views of stacked tensors, so all methods of ``TrainState``
    keep working.
    """

    def __init__(self, states: list[TrainState]):
        self.states, self.frozen = states, states[0].network.frozen
        tops = [nn.Sequential(*state.network.layers[self.frozen :]) for state in states]
        self.top = tops[0]
        self._own = [dict(top.named_parameters()) for top in tops]
        self.parameters = _stacked(self._own)
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        self.buffers = _stacked([dict(top.named_buffers()) for top in tops])
        self._roles = parameter_kinds(self.top)

    def gradients(self, batch: Batch, shared: PrefixCache) -> None:
        """Compute the loss and the gradients of every network of the stack."""
        with autocast(batch, self.states[0].spec.recipe):
            inputs = [shared.outputs(state, self.frozen) for state in self.states]
        one = all(x is inputs[0] for x in inputs)
        x = inputs[0] if one else torch.stack(inputs)
        # Autocast does not reach into vmap: cast as it does, except for normalization.
        cast = {
            k: p if self._roles[k] == NORMALIZATION else p.to(x.dtype)
            for k, p in self.parameters.items()
        }
        with fused(False):
            losses = vmap(self._loss, (0, 0, None if one else 0, None))(
                cast, self.buffers, x, batch.labels
            )
        for parameter in self.parameters.values():
            parameter.grad = None
        losses.sum().backward()
        for i, state in enumerate(self.states):
            state.loss = losses[i].detach()
            for name, parameter in self._own[i].items():
                parameter.grad = self.parameters[name].grad[i]  # type: ignore[index]  # backward's

    def _loss(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, labels: Tensor
    ) -> Tensor:
        return F.cross_entropy(
            functional_call(self.top, (parameters, buffers), (x,)).float(),
            labels,
            label_smoothing=self.states[0].spec.recipe.label_smoothing,
        )


def _stacked(networks: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack tensors of equal name; the networks' own tensors become views of the stacked ones.

    Each keeps its memory format (channels last), unlike with ``torch.stack``.
    """
    out = {}
    for name, like in networks[0].items():
        shape, strides = (len(networks), *like.shape), (like.numel(), *like.stride())
        out[name] = torch.empty_strided(shape, strides, dtype=like.dtype, device=like.device)
        for i, own in enumerate(networks):
            out[name][i] = own[name].detach()
            own[name].data = out[name][i]
    return out


class JointOptimizer:
    """The optimizer step of many networks at once.

    The joint optimizer shares its state with the optimizer of each network.
    """

    def __init__(self, states: list[TrainState]):
        self.states = states
        keys = ("recipe", "multiplier", "weight_decay")
        groups: dict[tuple, list[nn.Parameter]] = {}
        for state in states:
            for group in state.optimizer.param_groups:
                groups.setdefault(tuple(group[k] for k in keys), []).extend(group["params"])
        self.optimizer = optimizer_of(
            [{"params": p, **dict(zip(keys, key, strict=True))} for key, p in groups.items()],
            states[0].spec.recipe,
        )
        self.loss_sum = torch.stack([state.loss_sum for state in states])
        self.diverged_at = torch.stack([state.diverged_at for state in states])
        for i, state in enumerate(states):
            state.loss_sum, state.diverged_at = self.loss_sum[i], self.diverged_at[i]
            for parameter in state.network.parameters():
                if parameter.requires_grad:
                    self.optimizer.state[parameter] = state.optimizer.state[parameter]

    def __call__(self) -> None:
        step = self.states[0].step
        set_learning_rate(self.optimizer, step)
        self.optimizer.step()
        losses = torch.stack([state.loss for state in self.states])
        record_losses(losses, self.loss_sum, self.diverged_at, step)
        for state in self.states:
            state.step += 1
