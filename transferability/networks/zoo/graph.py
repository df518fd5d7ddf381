"""The graph of a network (torch.fx): tracing, constant sizes, and the data flow between nodes."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from transferability.errors import UserError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Node = fx.Node
ARGUMENTS = {  # of functions that apply dropout
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), ("input", "p", "training")),
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask", "dropout_p"),
}


class SingleInput(nn.Module):
    """A network as a function of the image alone: optional arguments would stay live to the end
    of the graph.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Tracer(fx.Tracer):
    """Treat modules without submodules, and those in ``leaves``, as leaves; record the module in
    which a trace fails.
    """

    def __init__(self, leaves: set[str], functions: tuple[Callable, ...]):
        # importing torchvision takes seconds, so only tracing imports it
        from torchvision import ops

        super().__init__(autowrap_modules=(math, ops), autowrap_functions=functions)
        self.leaves, self.stack = leaves, list[str]()
        self.failed_in: str | None = None

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        childless = not isinstance(module, CONTAINERS) and not any(True for _ in module.children())
        return name in self.leaves or childless or super().is_leaf_module(module, name)

    def call_module(
        self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict
    ) -> object:
        self.stack.append(self.path_of_module(module))
        try:
            out = super().call_module(module, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or self.stack[-1]
            raise
        self.stack.pop()
        return out


def trace(root: SingleInput) -> fx.GraphModule:
    """Trace ``root`` in its present mode; a module that cannot be traced becomes a leaf.

    Raises:
        UserError: the network as a whole cannot be traced.
    """
    functions, modules = _untraceable_of_timm()
    leaves = {name for name, module in root.named_modules() if isinstance(module, modules)}
    while True:
        tracer = _Tracer(leaves, functions)
        try:
            traced = fx.GraphModule(root, tracer.trace(root))
        except Exception as error:
            if tracer.failed_in in (None, "model", *leaves):
                what = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"its forward cannot be traced ({what[:200]})") from error
            leaves.add(tracer.failed_in)
            continue
        traced.graph.eliminate_dead_code()
        _refuse_hidden_dropout(traced)
        return traced


def _refuse_hidden_dropout(traced: fx.GraphModule) -> None:
    """Raise :class:`UserError` for dropout that is not a module: it draws from torch's generator,
    so in a cohort its masks would depend on the other networks.
    """
    for node in traced.graph.nodes:
        names = (
            ARGUMENTS.get(getattr(node.target, "__name__", ""))
            if node.op == "call_function"
            else None
        )
        if names is None:
            continue
        given = {
            "p": 0.5,
            "dropout_p": 0.0,
            **dict(zip(names, node.args, strict=False)),
            **node.kwargs,
        }
        if given.get("training", True) and given["p" if "p" in names else "dropout_p"]:
            raise UserError(
                f"its {node.name} applies dropout with a function, not with a module, which "
                "cannot be seeded"
            )


def _untraceable_of_timm() -> tuple[tuple[Callable, ...], tuple[type, ...]]:
    """Functions and modules that timm excludes from tracing; none if timm is not installed."""
    try:
        from timm.layers import get_notrace_functions, get_notrace_modules
    except ImportError:
        return (), ()
    return tuple(f for f in get_notrace_functions() if callable(f)), tuple(get_notrace_modules())


class _Values(fx.Interpreter):
    """Runs a graph and keeps the value of every node."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.values: dict[Node, object] = {}

    def run_node(self, node: Node) -> object:
        self.values[node] = super().run_node(node)
        return self.values[node]


def specialize_shapes(traced: fx.GraphModule, input_size: int) -> set[Node]:
    """Replace numbers that are the same for batches of 2 and 3 by constants; return the nodes
    that are the batch size.

    Computed without data (on torch's meta device).

    Raises:
        UserError: the network is not a classifier.
    """
    # copy the graph without the values of the weights, which may be large
    shapes = copy.deepcopy(
        traced,
        {id(p): nn.Parameter(p.detach().to("meta"), False) for p in traced.parameters()}
        | {id(b): b.to("meta") for b in traced.buffers()},
    )
    runs = []
    for batch in (2, 3):
        values = _Values(shapes)
        with torch.no_grad():
            out = values.run(torch.empty(batch, 3, input_size, input_size, device="meta"))
        _require_logits(out, batch)
        runs.append({node.name: value for node, value in values.values.items()})
    of_batch = set()
    for node in list(traced.graph.nodes):
        two, three = (run.get(node.name) for run in runs)
        if node.op in ("placeholder", "output", "get_attr") or not isinstance(two, (int, float)):
            continue
        if two == three:
            for user in list(node.users):
                user.args, user.kwargs = (
                    _replaced(part, node, two) for part in (user.args, user.kwargs)
                )
        elif (two, three) == (2, 3):
            of_batch.add(node)
    traced.graph.eliminate_dead_code()
    return {node for node in of_batch if node in set(traced.graph.nodes)}


def _require_logits(out: object, batch: int) -> None:
    if isinstance(out, Tensor) and out.dim() == 2 and len(out) == batch:
        return
    what = "x".join(map(str, out.shape)) if isinstance(out, Tensor) else "several tensors"
    raise UserError(
        f"it is not a classifier: for {batch} images it returns {what}, not one row of logits each"
    )


def _replaced(part: Any, node: Node, by: Any) -> Any:
    return fx.node.map_aggregate(part, lambda value: by if value is node else value)


class DataFlow:
    """The nodes of a graph as data, sizes or constants (computed from parameters alone)."""

    def __init__(self, traced: fx.GraphModule):
        self.nodes = list(traced.graph.nodes)
        self.sizes: set[Node] = set()
        self.constants: set[Node] = set()
        for node in self.nodes:
            if node.op in ("placeholder", "output"):
                continue
            if self._is_size(node):
                self.sizes.add(node)
            elif node.op != "call_module" and not self.inputs(node):
                self.constants.add(node)
        self.data = [n for n in self.nodes if n not in self.constants and n not in self.sizes]
        self.position = {node: i for i, node in enumerate(self.data)}

    def inputs(self, node: Node) -> list[Node]:
        """The nodes whose data ``node`` uses."""
        return [i for i in node.all_input_nodes if i not in self.constants and i not in self.sizes]

    def _is_size(self, node: Node) -> bool:
        if node.op == "call_method":
            return node.target in ("size", "dim", "numel")
        if node.op != "call_function":
            return False
        if node.target is getattr:
            return node.args[1] in ("shape", "ndim", "dtype", "device")
        of_sizes = bool(node.all_input_nodes) and all(i in self.sizes for i in node.all_input_nodes)
        return of_sizes and getattr(node.target, "__module__", "") in (
            "_operator",
            "math",
            "builtins",
        )

    def split_points(self) -> list[bool]:
        """For each data node except the output, whether no data node before it is used after it."""
        reach, found = -1, []
        for i, node in enumerate(self.data[:-1]):
            found.append(reach <= i)
            reach = max([reach, i, *(self.position[u] for u in node.users if u in self.position)])
        return found
