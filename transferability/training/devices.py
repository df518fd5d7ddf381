"""Which process trains on which GPU: a lock file each, held by the process that trains,
freed when it dies; streams; what running out of memory looks like.
"""

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from transferability.errors import UserError


@contextmanager
def training_device(device: torch.device) -> Iterator[torch.device]:
    """The device to train on within the block: a GPU of its own for ``cuda`` without a number,
    else ``device`` itself.

    Raises:
        UserError: every GPU that this process sees has a training process of this user already.
    """
    if device.type != "cuda" or device.index is not None:
        yield device
        return
    with claim(visible_gpus(), Path(tempfile.gettempdir())) as number, torch.cuda.device(number):
        yield torch.device("cuda", number)


def visible_gpus() -> list[str]:
    """A name for each GPU that this process sees, the same in every process, fit for a file.

    The UUID: under Slurm every process sees its own GPU as number 0. Of slices of a GPU (MIG) a
    process sees one, the one that it was told to use; whether its UUID there is the slice's or the
    whole GPU's differs by driver.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if told.startswith("MIG-"):
        return [told.partition(",")[0].replace("/", "-")]
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


@contextmanager
def claim(keys: list[str], folder: Path) -> Iterator[int]:
    """The place in ``keys`` of the first that no other holds,
    by a lock on a file in ``folder`` within the block.

    Raises:
        UserError: all are held, or a lock file cannot be opened.
    """
    own = getattr(os, "getuid", getpass.getuser)()  # Windows has no numbers
    paths = [folder / f"transferability-{own}-{key}.lock" for key in keys]
    claimed = next(
        ((place, lock) for place, path in enumerate(paths) if (lock := _lock(path)) is not None),
        None,
    )
    if claimed is None:
        raise UserError(
            f"each GPU here ({len(keys)}) already has a training process of yours: start at most "
            "one per GPU (hydra.launcher.n_jobs), or set device=cuda:0 to share that one"
        )
    place, lock = claimed
    try:
        yield place
    finally:
        lock.release()


def _lock(path: Path) -> FileLock | None:
    """The lock, or None if another holds it. Its file stays, and is opened through no link."""
    lock = FileLock(path, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened to claim a GPU: {error.strerror}; set device=cuda:0"
        ) from error
    return lock


@lru_cache
def cuda_stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """The CUDA stream of this process for one purpose on one GPU (``device`` has a number).

    torch hands streams out from a pool of 32 in turn, so that one made for every use would some day
    be the one that does something else; and its own stream for captures belongs for ever to the GPU
    of the first capture: captured on another GPU, a graph is empty, and its replays leave every
    result as it was, without a word.
    """
    return torch.cuda.Stream(device)


OUT_OF_MEMORY = (
    # torch's allocators, and mmap
    *("can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("out of memory", "_ALLOC_FAILED"),  # CUDA's, for pinned memory too; those of cuBLAS and cuDNN
    # cuDNN, where none has room to work in
    *("unable to find an engine", "Unable to find a valid cuDNN"),
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it, or what it came of, is: the end of a capture that ran out of memory has an
    error of its own.
    """
    if error is None:
        return False
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return (
        known
        or any(words in str(error) for words in OUT_OF_MEMORY)
        or is_out_of_memory(error.__context__)
    )
