"""Load pretrained base networks from a file or a library.

Task A is then the task of the weights. The digest of the tensors is their identity. Their origin
and metadata are labels.
"""

import os
import re
from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferability.errors import UserError, and_more
from transferability.files import digest_of
from transferability.networks.config import MEAN, NetworkConfig
from transferability.networks.modules import channels_subtracted
from transferability.networks.sequential import WEIGHT, layers_of, parameter_kinds
from transferability.networks.state_dict import (
    HEADER,
    read_weights,
    under_own_names,
    with_own_head,
    with_positions,
)
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.pretrained_info import (
    BESIDE,
    FILES,
    PretrainedBase,
    PretrainedInfo,
    assumed,
    described_beside,
    read_as,
)

SEPARATORS = frozenset(("/", os.sep))  # of folders; absent from the names of a library's weights
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # training-only heads (GoogLeNet, Inception)
CLASSES = 1000  # for weights without a classifier, which no network copies


def load_pretrained(weights: str, network: NetworkConfig) -> PretrainedBase:
    """Load the weights of ``network`` from a file, or by name from its library.

    Raises:
        UserError: the weights cannot be read or downloaded, or are of another network.
    """
    return _opened(weights, network, _stamps(weights))[0]


def pretrained_state_dict(pretrained: PretrainedBase) -> dict[str, Tensor]:
    """Return the tensors of a pretrained base, named as in a ``SequentialNetwork``, without a
    classifier if the file has none.

    Raises:
        UserError: the file has changed.
    """
    weights = pretrained.weights
    found, state = _opened(weights, pretrained.network, _stamps(weights))
    if found.digest != pretrained.digest:
        raise UserError(f"weights={weights} has changed: run the command again")
    return state


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file, not a library's weights."""
    if re.match(r"hf[-_]hub:", weights):
        return False
    return weights.endswith(FILES) or not SEPARATORS.isdisjoint(weights) or Path(weights).exists()


def _stamps(weights: str) -> tuple:
    """Inodes, sizes and modification times of a weights file and its configuration files."""
    if not is_file(weights):
        return ()
    found = [Path(weights), *(Path(weights).parent / name for name in BESIDE)]
    stats = [path.stat() for path in found if path.is_file()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


@lru_cache(maxsize=2)
def _opened(
    weights: str, network: NetworkConfig, stamps: tuple
) -> tuple[PretrainedBase, dict[str, Tensor]]:
    where = f"weights={weights}"
    if not isinstance(network, ZooNetworkConfig):
        raise UserError(f"{where}: only networks of torchvision and timm take weights")
    if "://" in weights:
        raise UserError(f"{where}: fetch the file and give its path, weights=PATH")
    header, notes = dict[str, Any](), list[str]()
    if is_file(weights):
        tensors, texts, notes = read_weights(Path(weights))
        header = texts.pop(HEADER, {})
        facts = _facts(Path(weights), header, texts, network, notes)
    else:
        tensors, facts = network.download_weights(network.tag_of(weights))
    network = replace(
        network,
        outputs=None,
        plan=(),
        token_pool=MEAN,  # a setting of the networks that start from this base
        channel_mean=network.channel_mean or facts.mean,
        channel_std=network.channel_std or facts.std,
        input_scale=header.get("input_scale", network.input_scale),
    )
    state, network = _loaded(tensors, network, where, notes)
    mean = channels_subtracted(network)
    if mean is None and "input_mean" not in header:
        raise UserError(
            f"{where}: nothing says what was subtracted from their images: set "
            "network.channel_mean and network.channel_std, for pixels from 0 to 1"
        )
    state["input.mean"] = torch.tensor(
        header["input_mean"] if mean is None else mean, dtype=torch.float32
    )
    facts = replace(facts, notes=(*facts.notes, *notes))
    return PretrainedBase(weights, digest_of(state), network, facts), state


def _facts(
    path: Path, header: dict, texts: dict[str, str], network: ZooNetworkConfig, notes: list[str]
) -> PretrainedInfo:
    """Metadata from the file, from files next to it, or from the library's default weights.

    Mean and standard deviation in the network's settings take precedence.
    """
    if header:
        facts = PretrainedInfo(**header["facts"])
        theirs, ours = header.get("model", ""), f"{network.kind} {network.model}"
        kind, _, model = theirs.partition(" ")
        if theirs and theirs != ours:
            setting = f"network={kind} network.model={model}"
            notes.append(read_as(f"the header of {path.name}", theirs, ours, setting))
    else:
        facts = described_beside(path, texts, network.model, notes) or assumed(network)
    if not (network.channel_mean or network.channel_std):
        return facts
    mean, std = network.channel_mean or facts.mean, network.channel_std or facts.std
    if (mean, std) == (facts.mean, facts.std):
        return facts
    origin = f"mean and deviation as set; the rest {facts.origin}"
    return replace(facts, mean=mean, std=std, origin=origin, notes=())


def _loaded(
    tensors: dict[str, Tensor], network: ZooNetworkConfig, where: str, notes: list[str]
) -> tuple[dict[str, Tensor], ZooNetworkConfig]:
    """Return the tensors under the names of a ``SequentialNetwork``, and the network with their
    number of outputs.

    The library's own network loads the tensors, as it may accept older names. Missing tensors
    (except the head's) and unexpected tensors are errors.
    """
    top = layers_of(network)[-1]
    classifier = [name for name, role in parameter_kinds(top).items() if role == WEIGHT][-1]
    shapes = {n: t.shape for n, t in network.build().state_dict().items()}
    head = _head(classifier, set(top.state_dict()), set(shapes))
    tensors = under_own_names(network.renamed(tensors), set(shapes), head, where, notes)
    if auxiliary := [name for name in tensors if name.startswith(AUXILIARY)]:
        tensors = {name: t for name, t in tensors.items() if name not in auxiliary}
        notes.append("heads used only in training are left out")
    own = {name: shape for name, shape in shapes.items() if name.startswith(f"{head}.")}
    tensors = with_own_head(tensors, head, own, notes)
    if classifier in tensors:
        network = replace(network, outputs=len(tensors[classifier]))
    network = network.resolved(CLASSES)
    model = network.build()
    wanted = model.state_dict()
    tensors = with_positions(tensors, {n: t.shape for n, t in wanted.items()}, notes)
    if wrong := [n for n, t in tensors.items() if n in wanted and t.shape != wanted[n].shape]:
        raise UserError(
            f"{where}: {wrong[0]} is {_size(tensors[wrong[0]])}, not {_size(wanted[wrong[0]])} as "
            f"in {network.model} at network.input_size={network.input_size}"
            f"{_differ_too(wrong)}{_of_size(wrong, network)}"
        )
    _require_floating_point(tensors, wanted, where)
    missing, extra = model.load_state_dict(_with_version(tensors, model), strict=False)
    above = set(top.state_dict())
    if classifier in missing and above.issuperset(missing):
        notes.append("without a classifier, which no network takes over")
        missing = []
    else:
        above = set()
    if missing or extra:
        lacks = f"lack {missing[0]}{and_more(missing)}" if missing else ""
        has = f"have {extra[0]}{and_more(extra)}" if extra else ""
        raise UserError(
            f"{where}: they are not the weights of {network.model}, which has {len(wanted)} "
            "tensors: they "
            f"{' and '.join(filter(None, (lacks, has)))}"
        )
    state = model.state_dict()
    chain = {
        f"layers.{i}.{name}": state[name]
        for i, layer in enumerate(layers_of(network))
        for name in layer.state_dict()
        if name not in above
    }
    return chain, network


def _with_version(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Add the installed network's version to the tensors, as MNASNet rejects tensors without one.

    Submodules get no version, so that BatchNorm needs no ``num_batches_tracked``.
    """
    state = OrderedDict(tensors)
    state._metadata = {"": {"version": model._version}}  # type: ignore[attr-defined]
    return state


def _require_floating_point(
    tensors: dict[str, Tensor], wanted: dict[str, Tensor], where: str
) -> None:
    """Raise :class:`UserError` for a type that torch would convert silently (quantized weights)."""
    for name, tensor in tensors.items():
        due = name in wanted and wanted[name].is_floating_point()
        if due and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{where}: {name} is of type {kind}, not floating-point, as quantized weights are: "
                "save them as float32"
            )


def _head(classifier: str, top: set[str], names: set[str]) -> str:
    """Return the outermost module that has the classifier and only tensors of the ``top`` layer."""
    parts = classifier.split(".")
    modules = (".".join(parts[:k]) for k in range(1, len(parts)))
    return next(m for m in modules if {n for n in names if n.startswith(f"{m}.")} <= top)


def _differ_too(wrong: list[str]) -> str:
    more = len(wrong) - 1
    return f" ({more} more differ{'s' if more == 1 else ''})" if more else ""


def _of_size(wrong: list[str], network: ZooNetworkConfig) -> str:
    """Name the usual input size, if position embeddings are among the ``wrong`` tensors."""
    tags = network.tags()
    size = network.info_of(tags[0]).size if tags else None
    if not size or size == network.input_size or not any("pos" in name for name in wrong):
        return ""
    return f": they depend on the size of the images, which is usually network.input_size={size}"


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
