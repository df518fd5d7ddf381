"""GPUs of this process: one lock file per GPU, held by the process that trains and released when it
dies; CUDA streams; recognizing out-of-memory errors.
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
from transferability.signals import StopRequest


@contextmanager
def training_device(device: torch.device) -> Iterator[torch.device]:
    """Yield the device to train on: an exclusive GPU for ``cuda`` without number, else ``device``.

    Raises:
        UserError: every visible GPU already has a training process of this user, or a lock file
            cannot be opened.
    """
    if device.type != "cuda" or device.index is not None:
        yield device
        return
    with claim(visible_gpus(), Path(tempfile.gettempdir())) as number, torch.cuda.device(number):
        yield torch.device("cuda", number)


def visible_gpus() -> list[str]:
    """A name for each visible GPU, identical in every process and valid in file names.

    GPUs are named by UUID, because under Slurm every process has its own GPU as number 0. A process
    can use only one slice of a GPU (MIG), the one in ``CUDA_VISIBLE_DEVICES``. Whether torch gives
    the UUID of the slice or of the entire GPU depends on the driver.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if told.startswith("MIG-"):
        return [told.partition(",")[0].replace("/", "-")]
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


@contextmanager
def claim(keys: list[str], folder: Path) -> Iterator[int]:
    """Lock the first free key by a file in ``folder`` within the block; yield the key's index.

    Raises:
        UserError: all keys are held, or a lock file cannot be opened.
    """
    own = getattr(os, "getuid", getpass.getuser)()  # Windows has no user ids
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
    """Acquire the lock; None if another process holds it. The file stays; links are refused."""
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

    torch takes streams from a pool of 32 in turn, so a stream created for every use would at some
    point be shared with another purpose. torch's own stream for captures stays on the GPU of the
    first capture: on another GPU the captured graph is empty, and its replays silently change
    nothing.
    """
    return torch.cuda.Stream(device)


OUT_OF_MEMORY = (
    # torch's allocators, and mmap
    *("can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("out of memory", "_ALLOC_FAILED"),  # CUDA, also for pinned memory; cuBLAS and cuDNN
    # cuDNN, if no algorithm has enough workspace
    *("unable to find an engine", "Unable to find a valid cuDNN"),
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one in its context, means out of memory.

    Ending a capture that ran out of memory raises another error.
    """
    if error is None:
        return False
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return (
        known
        or any(words in str(error) for words in OUT_OF_MEMORY)
        or is_out_of_memory(error.__context__)
    )


@contextmanager
def stopping_out_of_memory(stop: StopRequest) -> Iterator[None]:
    """If the block runs out of memory after a stop was requested, stop instead of trying fewer
    networks.

    Raises:
        KeyboardInterrupt: instead of the error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if stop.requested and is_out_of_memory(error):
            raise KeyboardInterrupt from error
        raise
