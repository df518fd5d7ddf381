"""Find the layers of any network.

A *layer* is everything between two points where a single tensor carries everything from input to
output. Layers are found in the network's graph (torch.fx), so any network of torchvision or timm
with such points can be chopped:

1. In trace order, a node is a *cut* if no node before it is used after it. Nodes of sizes, and
   nodes computed from parameters alone (a class token, positions), are ignored: they belong to the
   nodes that use them.
2. If the forward method of a class of modules joins two data paths (a residual block, an inception
   module), no instance is cut, even one without a shortcut. Containers, and modules with over 90%
   of the parameters, are exempt.
3. A piece with a weight begins a layer. Pieces without parameters (ReLU, pooling, flatten) join
   the layer below. Pieces with only normalization, tokens or positions join the neighbor with the
   longer common module path, or the lower one in a tie.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn

from transferability.errors import UserError
from transferability.networks.zoo.graph import (
    CONTAINERS,
    DataFlow,
    Node,
    SingleInput,
    specialize_shapes,
    trace,
)

WHOLE = 0.9  # a module with a larger share of the parameters is the network itself
# a network with a layer above this share of the parameters cannot be chopped
MAX_LAYER_SHARE = 0.97
MIN_LAYERS = 4  # three would be the stem, the classifier and one layer for everything else


def _within(node: Node) -> list[str]:
    """The paths of the modules that contain a node, outermost first, without the called module
    itself.
    """
    around = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return around[:-1] if node.op == "call_module" else around


def _whole_classes(root: SingleInput, flow: DataFlow) -> set[type]:
    """The classes whose forward method joins two data paths (rule 2)."""
    modules, total = dict(root.named_modules()), _size(root)
    found = set()
    for node in flow.data[:-1]:
        around = _within(node)
        if node.op == "call_module" or len(flow.inputs(node)) < 2 or not around:
            continue
        module = modules[around[-1]]
        if (
            module in (root, root.model)
            or isinstance(module, CONTAINERS)
            or _size(module) > WHOLE * total
        ):
            continue
        found.add(type(module))
    return found


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _segments(root: SingleInput, flow: DataFlow) -> list[list[Node]]:
    """The nodes between cuts, in order; constants and sizes belong to the data node after them."""
    cuts, whole = flow.split_points(), _whole_classes(root, flow)
    inside: dict[str, list[int]] = {}
    for i, node in enumerate(flow.data[:-1]):
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            inside.setdefault(path, []).append(i)
    for path, module in root.named_modules():
        if type(module) in whole and path in inside:
            for i in range(min(inside[path]), max(inside[path])):
                cuts[i] = False
    pieces: list[list[Node]] = [[]]
    for node in flow.nodes[:-1]:
        pieces[-1].append(node)
        if node in flow.position and cuts[flow.position[node]]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _parameters(root: nn.Module, piece: list[Node]) -> list[str]:
    """The names of the parameters that the nodes of a piece use, in order."""
    names = {id(p): name for name, p in root.named_parameters()}
    modules, found = dict(root.named_modules()), []
    for node in piece:
        if node.op == "call_module":
            found += [names[id(p)] for p in modules[node.target].parameters()]
        elif node.op == "get_attr" and isinstance(
            value := attrgetter(str(node.target))(root), nn.Parameter
        ):
            found.append(names[id(value)])
    return found


def _begins_layer(root: nn.Module, piece: list[Node]) -> bool:
    """Whether a piece has a weight: a parameter of two or more dimensions in a called module."""
    modules = dict(root.named_modules())
    of_modules = (p for n in piece if n.op == "call_module" for p in modules[n.target].parameters())
    return any(p.dim() > 1 for p in of_modules)


def _layers(root: SingleInput, flow: DataFlow) -> list[list[Node]]:
    """Join the pieces to layers (rule 3)."""
    pieces = _segments(root, flow)
    paths = [common_path(_parameters(root, piece)) for piece in pieces]
    weighty = [_begins_layer(root, piece) for piece in pieces]
    layers: list[list[Node]] = []
    below: list[str] = []  # the path of the layer below
    waiting: list[Node] = []
    for k, piece in enumerate(pieces):
        above = next((paths[j] for j in range(k + 1, len(pieces)) if weighty[j]), None)
        if weighty[k]:
            layers.append(waiting + piece)
            waiting, below = [], paths[k]
        elif not layers or waiting or _is_nearer(paths[k], above or [], below):
            waiting += piece
        else:
            layers[-1] += piece
    if layers:
        layers[-1] += waiting
    return layers


def _is_nearer(path: list[str], above: list[str], below: list[str]) -> bool:
    """Whether a module path shares more with the path of the layer above than with ``below``."""
    return len(_common([path, above])) > len(_common([path, below]))


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a network architecture, with any weights.

    Attributes:
        parameters: names of the parameters in the library's network.
        used: paths of the required modules, parameters and buffers in the library's network.
        constants: tensors that tracing found in the code.
        run: the forward functions for training (True) and evaluation (False).
    """

    parameters: tuple[str, ...]
    used: tuple[str, ...]
    constants: dict[str, Tensor]
    run: dict[bool, Callable[[nn.Module, Tensor], Tensor]]


class PartitionedLayer(nn.Module):
    """A layer of ``model``: the library's modules and parameters, under the library's names."""

    def __init__(self, plan: LayerSpec, model: nn.Module):
        super().__init__()
        self._plan = plan
        for path in plan.used:
            _attach(self, path, model)
        for name, value in plan.constants.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._plan.run[self.training](self, x)


def _attach(layer: nn.Module, path: str, model: nn.Module) -> None:
    """Attach a module, parameter or buffer of ``model`` to ``layer`` at the same path."""
    *above, name = path.split(".")
    owner, value = model.get_submodule(".".join(above)), attrgetter(path)(model)
    for part in above:
        if part not in dict(layer.named_children()):
            layer.add_module(part, nn.Module())
        layer = layer.get_submodule(part)
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        layer.register_buffer(name, value, persistent=name not in owner._non_persistent_buffers_set)
    elif not hasattr(layer, name):
        setattr(layer, name, value)


def _layer(root: SingleInput, flow: DataFlow, nodes: list[Node], of_batch: set[Node]) -> LayerSpec:
    """A layer as a function of its only input tensor.

    Constants are computed where they are used. The batch size is the input's.
    """
    mine = [n for n in nodes if n in flow.position and n.op not in ("placeholder", "output")]
    entering = {i for n in mine for i in flow.inputs(n)} - set(mine)
    if len(entering) != 1:
        raise UserError(f"{len(entering)} tensors enter the layer that ends with {mine[-1].name}")
    graph, used, constants = fx.Graph(), dict[str, Any](), dict[str, Any]()
    x = graph.placeholder("x")
    made = {entering.pop(): x}

    def get(node: Node) -> Node:
        if node not in made:
            if node in of_batch:
                made[node] = graph.call_method("size", (x, 0))
            elif node in flow.position:
                raise UserError(f"{node.name.removeprefix('model_')} is used beyond its layer")
            else:
                made[node] = copied(node)
        return made[node]

    def copied(node: Node) -> Node:
        new = graph.node_copy(node, get)
        if new.op in ("call_module", "get_attr"):
            target = str(node.target)
            value, of_model = attrgetter(target)(root), target.startswith("model.")
            new.target = (
                target.removeprefix("model.") if of_model else f"{target}_{root.model.training}"
            )
            (used if of_model else constants)[new.target] = value
        return new

    for node in mine:
        made[node] = copied(node)
    graph.output(made[mine[-1]])
    names = tuple(name.removeprefix("model.") for name in _parameters(root, nodes))
    run = type(fx.GraphModule(used | constants, graph)).forward
    return LayerSpec(names, tuple(used), constants, {root.model.training: run})


def _chopped(model: nn.Module, input_size: int) -> list[LayerSpec]:
    """The layers in the model's present mode."""
    root = SingleInput(model)
    root.training = model.training
    traced = trace(root)
    of_batch = specialize_shapes(traced, input_size)
    flow = DataFlow(traced)
    return [_layer(root, flow, nodes, of_batch) for nodes in _layers(root, flow)]


def partition(model: nn.Module, input_size: int) -> list[LayerSpec]:
    """Find the layers of networks like ``model``, for images of ``input_size`` pixels per side.

    Raises:
        UserError: the network cannot be chopped; the message gives the reason.
    """
    before = model.training
    training, evaluation = (_chopped(model.train(mode), input_size) for mode in (True, False))
    model.train(before)
    if [layer.parameters for layer in training] != [layer.parameters for layer in evaluation]:
        raise UserError("its layers in training and in evaluation differ")
    _check(model, [layer.parameters for layer in training])
    return [_joined(*modes) for modes in zip(training, evaluation, strict=True)]


def _joined(training: LayerSpec, evaluation: LayerSpec) -> LayerSpec:
    used = tuple(dict.fromkeys(training.used + evaluation.used))
    return LayerSpec(
        training.parameters,
        used,
        training.constants | evaluation.constants,
        training.run | evaluation.run,
    )


def _check(model: nn.Module, plan: list[tuple[str, ...]]) -> None:
    """Require each parameter in exactly one layer, and enough layers of which none dominates."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    counted = Counter(name for layer in plan for name in layer)
    if wrong := [name for name in sizes if counted[name] != 1]:
        raise UserError(f"its parameter {wrong[0]} is in {counted[wrong[0]]} layers")
    largest = max(sum(sizes[name] for name in layer) for layer in plan) / sum(sizes.values())
    if len(plan) < MIN_LAYERS or largest > MAX_LAYER_SHARE:
        raise UserError(
            f"there is no place to chop it: {largest:.0%} of it lies between two places where a "
            "single tensor carries everything"
        )


def common_path(names: list[str]) -> list[str]:
    """The path of the innermost module that contains all of these parameters."""
    return _common([name.split(".")[:-1] for name in names])


def _common(paths: list[list[str]]) -> list[str]:
    """The longest common prefix."""
    together = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return [parts[0] for parts in together]
