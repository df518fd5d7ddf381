"""Atomic files: write to a temporary file, fsync, rename."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from transferability.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_UMASK = os.umask(0)
os.umask(_UMASK)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes: our own, and those of safetensors."""
    for left in (*folder.glob(".*.tmp"), *folder.glob(".tmp*")):
        # already removed, or the folder is not writable, which the next write reports
        with suppress(OSError):
            left.unlink()


def make_folder(path: Path, key: str) -> Path:
    """Create the folder given by the setting ``key`` if it does not exist.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be created: {error.strerror}") from error
    return path


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically (see :func:`replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is synced and renamed to ``path`` if the block raises no error.

    Raises:
        UserError: the file cannot be written, e.g. because the disk is full.
    """
    from safetensors import SafetensorError  # imported only here: --help does not need it

    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors writes for its owner only
        with open(temporary, "rb+") as file:  # Windows cannot sync a file opened for reading
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{path} cannot be written ({why}): what was there before is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def digest_of(tensors: "dict[str, Tensor]", header: str = "") -> str:
    """SHA-256 of the header and of the names, types, shapes and values of the tensors."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().numpy().data)
    return digest.hexdigest()


def plain(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors on the CPU in standard memory order, as safetensors stores them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def save_tensors(tensors: "dict[str, Tensor]", path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file; not atomic, ``path`` should come from :func:`replacing`."""
    from safetensors.torch import save_file  # imports torch, which reading a store does not need

    save_file(plain(tensors), path, metadata=header)


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors in a safetensors file, by name."""
    from safetensors.torch import load_file

    return load_file(path)


def expanded(path: str, key: str) -> str:
    """Replace ``~`` or ``~user`` at the start of ``path`` with the home folder.

    Raises:
        UserError: there is no such user; the message names the setting ``key``.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise UserError(
            f"{key}={path}: there is no home folder {Path(path).parts[0]}; "
            f"for a file of that name write ./{path}"
        )
    return found
