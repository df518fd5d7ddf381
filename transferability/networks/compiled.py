"""Compile functions to fused kernels with ``torch.compile``, where that works."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

log = logging.getLogger(__name__)
SHAPES = 64  # for which one function can be compiled

_choice: ContextVar[bool | None] = ContextVar("choice", default=None)


@contextmanager
def fused(choice: bool) -> Iterator[None]:
    """Switch fused kernels on or off within the block: for code that cannot be compiled (vmap),
    and for comparisons.
    """
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


def fuses(x: Tensor) -> bool:
    """Whether functions of ``x`` run as fused kernels: by default on a GPU where compilation
    works.
    """
    choice = _choice.get()
    return x.is_cuda and compiles(x.device) if choice is None else choice


@lru_cache
def compiles(device: torch.device) -> bool:
    """Whether ``torch.compile`` works for a device: tried once, without a cache, as its
    requirements differ by version.
    """
    from torch._inductor import config

    # a cached kernel would hide a missing compiler
    from torch._inductor.utils import fresh_cache

    try:
        with (
            TemporaryDirectory() as folder,
            fresh_cache(dir=folder),
            config.patch(compile_threads=1),
        ):
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # of any kind: training continues without fused kernels
        why = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        log.warning(
            "nothing can be compiled for %s (%s): no kernels are fused, training is slower",
            device,
            why,
        )
        return False
    return True


@lru_cache
def compiled(function: Callable) -> Callable:
    """Return ``function`` compiled separately for each input shape: per layer, in training,
    as frozen prefix and in validation.
    """
    fast = torch.compile(function, dynamic=False)

    def call(*values: object) -> object:
        # Beyond this limit torch silently falls back to single operations. The setting is per
        # thread (torch 2.15), and backward passes on a GPU run in their own threads.
        if torch._dynamo.config.recompile_limit < SHAPES:
            torch._dynamo.config.recompile_limit = SHAPES
        return fast(*values)

    return call
