"""Files of weights, whoever wrote them: read without running anything, and tidied with a word about
each thing that was done.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import torch
from torch import Tensor

from transferability.errors import UserError, reason, shown

# Where training scripts keep the weights in what they save, the averaged ones first.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
# What wrappers of modules put before every name: DataParallel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
COUNTERS = ("n_averaged",)  # of an averaged model, beside its weights
HEADER = "transferability"  # what our own export says of the weights, in the header of the file


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """The tensors of a file by name, what our own export wrote about them, and a note for each
    thing that was put right.

    ``.safetensors``, or what ``torch.save`` wrote, of which nothing but tensors is ever unpickled.
    Floating point numbers become float32.

    Raises:
        UserError: there is no such file, it is damaged, holds code, or no weights.
    """
    if not path.is_file():
        raise UserError(f"weights={shown(path)}: there is no such file")
    if path.suffix == ".safetensors":
        found, header = _safetensors(path)
    else:
        found, header = _torch(path), {}
    found, notes = _unwrapped(found, path)
    return _as_float32(found, path, notes), header, notes


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            # ``file`` is not a dict
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _torch(path: Path) -> Any:
    try:
        # the options that training scripts save beside the weights: a class without code
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise UserError(
                f"weights={shown(path)} holds more than tensors, and reading it would run code: "
                "it is not read. Whoever trusts it saves its model.state_dict() to a new file"
            ) from error
        raise _damaged(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"weights={shown(path)} cannot be read: it is truncated, or no file of weights "
        f"({reason(error)})"
    )


def _unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights in what a training script saved, under their own names."""
    notes = []
    while isinstance(found, Mapping) and not _tensors_only(found):
        inner = next((k for k in WRAPPERS if isinstance(found.get(k), Mapping)), None)
        if inner is None:
            break
        found, _ = found[inner], notes.append(f"taken from its {inner!r}")
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"weights={shown(path)} holds no weights: a dictionary of tensors is wanted"
        )
    found = {name: value for name, value in found.items() if name not in COUNTERS}
    if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise UserError(
            f"weights={shown(path)} holds {shown(others[0])}, which is no tensor: a dictionary of "
            f"tensors is wanted, or one below {', '.join(WRAPPERS)}"
        )
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
        notes.append(f"{prefix!r} taken off all names")
    return found, notes


def _tensors_only(found: Mapping) -> bool:
    return all(isinstance(value, Tensor) for value in found.values())


def _as_float32(found: dict[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    out, types = {}, set()
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"weights={shown(path)}: {name} is sparse or quantised")
        if tensor.is_floating_point():
            if not tensor.isfinite().all():
                raise UserError(
                    f"weights={shown(path)}: {name} has values that are infinite or no number"
                )
            if tensor.dtype != torch.float32:
                types.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.float()
        out[name] = tensor
    if types:
        notes.append(f"{' and '.join(sorted(types))} made float32")
    return out
