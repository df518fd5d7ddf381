"""Read weights files of any program without running code, and normalize their tensors.

Each change adds a note.
"""

import argparse
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor

from transferability.errors import UserError, and_more, reason, shown

# Keys of the weights in files of training scripts, averaged weights first.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "params_ema", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model"),
)
# Prefixes of the network to use in files with two networks, as its authors do (MoCo, BYOL).
OF_TWO = ("encoder_q.", "online_encoder.", "online_network.", "teacher.")
POSITIONS = ("pos_embed", "pos_embedding")  # timm's and torchvision's
TOKENS = (0, 1, 2, 5)  # numbers of tokens before the grid: class, distillation, registers
COUNTER = "num_batches_tracked"  # of BatchNorm; missing in files from before 2018
# First bytes of files that are named like weights files but are something else.
OTHERS = {
    b"<": "is a web page, not the file that it links to: download that file",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"\x89HDF": "is a Keras file (HDF5), not a PyTorch file",
    b"\x1f\x8b": "is compressed: unpack it",
}
HEADER = "transferability"  # key of our export's metadata in the header of a file


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Read a safetensors file, or a file of ``torch.save`` without running code in it.

    The first bytes or the suffix ``.safetensors`` identify the format. Floating-point tensors
    become float32.

    Returns:
        The tensors by name; the safetensors header, with our export's metadata (HEADER) decoded;
        and a note for each change.

    Raises:
        UserError: the file is missing or damaged, has code or no weights, or a tensor is sparse,
            quantized or not finite.
    """
    if not path.is_file():
        raise UserError(f"weights={path}: there is no such file")
    with path.open("rb") as file:
        first = file.read(64)
    if other := next((what for magic, what in OTHERS.items() if _begins(first, magic)), None):
        raise UserError(f"weights={path} {other}")
    if first[8:9] == b"{" or path.suffix == ".safetensors":  # JSON header, after its length
        found, header = _safetensors(path)
    else:
        found, header = _torch(path), {}
    found, notes = _unwrapped(found, path)
    return _as_float32(found, path, notes), header, notes


def _begins(first: bytes, magic: bytes) -> bool:
    return first.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            if HEADER in header:
                header[HEADER] = json.loads(header[HEADER])
            # ``file`` is not a dict
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, reason(error)) from error


def _torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] for name in archive.namelist()}
        if "archive_format" in parts:
            raise UserError(
                f"weights={path} is a torch.export program, not weights: export the run with "
                "out=FILE.safetensors"
            )
        if "constants.pkl" in parts:
            raise UserError(
                f"weights={path} is a TorchScript program, and reading it may run it: it is "
                "not read. If you trust it, save its weights to a new file, "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW), and give that"
            )
    try:
        # training scripts save their options with the weights: a class without code
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if found := re.search(r"Unsupported (?:global|class):? (?:GLOBAL )?([\w.]+)", str(error)):
            raise UserError(
                f"weights={path} holds more than tensors ({found[1]}), and reading it would "
                "run code: it is not read. If you trust it, save its model.state_dict() to a new "
                "file"
            ) from error
        raise _damaged(path) from error  # torch's message advises running the file's code
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        advice = "weights_only" in str(error)
        raise _damaged(path, "" if advice else reason(error)) from error


def _damaged(path: Path, why: str = "") -> UserError:
    return UserError(
        f"weights={path} cannot be read: it is truncated, or not a weights file"
        f"{f' ({why})' if why else ''}"
    )


def _unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Extract the weights from the object that a training script saved, with notes."""
    notes = []
    while isinstance(found, Mapping) and not _tensors_only(found):
        inner = _inner(found, path)
        if inner is None:
            break
        found = found[inner]
        notes.append(f"taken from its {inner!r}")
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"weights={path} holds no weights: it must hold a dictionary of tensors")
    if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise UserError(
            f"weights={path} holds {others[0]}, which is not a tensor: it must hold a dictionary "
            "of tensors, by itself or below one key"
        )
    return dict(found), notes


def _inner(found: Mapping, path: Path) -> str | None:
    """Return the key of the weights: a known one, or the only one with nothing but tensors.

    Raises:
        UserError: several keys have nothing but tensors.
    """
    holding = [key for key, value in found.items() if _holds_tensors(value)]
    if known := [key for key in WRAPPERS if key in holding]:
        return known[0]
    inner = [key for key in holding if _tensors_only(found[key])]
    if len(inner) > 1:
        raise UserError(
            f"weights={path} holds tensors below {inner[0]} and below "
            f"{inner[1]}: save one of them to a file of its own"
        )
    return inner[0] if inner else None


def under_own_names(
    tensors: dict[str, Tensor], wanted: set[str], head: str, where: str, notes: list[str]
) -> dict[str, Tensor]:
    """Rename tensors to the network's names, ``wanted``, by removing a common prefix.

    Tensors without the prefix are left out, with a note. Nothing changes if no prefix matches all
    names outside the ``head``.

    Raises:
        UserError: several prefixes match, and not exactly one is in OF_TWO.
    """
    needed = {n for n in wanted if not n.startswith(f"{head}.") and not n.endswith(COUNTER)}
    if needed <= tensors.keys():
        return tensors
    anchor = min(needed, key=lambda name: (name.count("."), name))
    prefixes = [n.removesuffix(anchor) for n in tensors if n.endswith(f".{anchor}")]
    fitting = [p for p in prefixes if all(f"{p}{name}" in tensors for name in needed)]
    if len(fitting) > 1:
        known = [p for p in fitting if p.endswith(OF_TWO)]
        if len(known) != 1:
            raise UserError(
                f"{where}: they fit below {fitting[0]!r} and below {fitting[1]!r}: save one of "
                "them to a file of its own"
            )
        fitting = known
    if not fitting:
        return tensors
    prefix = fitting[0]
    others = [name for name in tensors if not name.startswith(prefix)]
    rest = f"; {shown(others[0])}{and_more(others)} left out" if others else ""
    below = "the names below it" if others else "all names"
    notes.append(f"{prefix!r} removed from {below}{rest}")
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def with_own_head(
    tensors: dict[str, Tensor], head: str, own: dict[str, tuple[int, ...]], notes: list[str]
) -> dict[str, Tensor]:
    """Leave out a head that differs from the library's, or rename it if it is a linear layer
    after layers without weights (dropout).

    Args:
        head: the module that contains all tensors of the network's head.
        own: shapes of these tensors by name; the number of outputs is not compared.
    """
    found = {name: t for name, t in tensors.items() if name.startswith(f"{head}.")}
    if all(name in own and t.shape[1:] == own[name][1:] for name, t in found.items()):
        return tensors
    rest = {name: t for name, t in tensors.items() if name not in found}
    kinds = {name.rpartition(".")[2]: t for name, t in found.items()}
    names = {name.rpartition(".")[2]: name for name in own}
    fits = kinds.keys() == names.keys() and len(kinds) == len(found) == len(own)
    if fits and all(t.shape[1:] == own[names[kind]][1:] for kind, t in kinds.items()):
        module = next(iter(found)).rpartition(".")[0]
        notes.append(f"{module} read as its classifier")
        return rest | {names[kind]: t for kind, t in kinds.items()}
    notes.append(
        f"its head ({shown(next(iter(found)))}{and_more(list(found))}) differs, and is left out"
    )
    return rest


def with_positions(
    tensors: dict[str, Tensor], wanted: dict[str, tuple[int, ...]], notes: list[str]
) -> dict[str, Tensor]:
    """Resize a transformer's position embeddings for another image size.

    The grid is resized as in timm (bicubic, antialiased). Tokens before the grid are kept.

    Args:
        wanted: the network's shapes by name.
    """
    out = dict(tensors)
    for name, old in tensors.items():
        new = wanted.get(name, old.shape)
        if not name.endswith(POSITIONS) or old.dim() != 3 or len(new) != 3 or new == old.shape:
            continue
        for tokens in TOKENS:
            sides = [math.isqrt(max(n - tokens, 0)) for n in (old.shape[1], new[1])]
            if [side**2 + tokens for side in sides] == [old.shape[1], new[1]] and min(sides):
                before, after = sides
                grid = old[:, tokens:].float().unflatten(1, (before, before)).movedim(3, 1)
                grid = F.interpolate(grid, (after, after), mode="bicubic", antialias=True)
                grid = grid.flatten(2).movedim(1, 2)
                out[name] = torch.cat([old[:, :tokens].float(), grid], 1)
                notes.append(f"{name} resized from {before}x{before} to {after}x{after} positions")
                break
    return out


def _tensors_only(found: Mapping) -> bool:
    return all(isinstance(value, Tensor) for value in found.values())


def _holds_tensors(value: Any) -> bool:
    """Whether ``value`` is a dictionary with tensors at any depth: model settings and unused
    averages have the same keys as weights.
    """
    return isinstance(value, Mapping) and any(
        isinstance(part, Tensor) or _holds_tensors(part) for part in value.values()
    )


def _as_float32(found: dict[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    out, types = {}, set()
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"weights={path}: {name} is sparse or quantized")
        out[name] = tensor
        if tensor.is_floating_point():
            out[name] = tensor.float()
            if not out[name].isfinite().all():
                raise UserError(
                    f"weights={path}: {name} has values that are infinite or NaN in float32"
                )
            if tensor.dtype != torch.float32:
                types.add(str(tensor.dtype).removeprefix("torch."))
    if types:
        notes.append(f"{' and '.join(sorted(types))} converted to float32")
    return out
