"""Whether functions are compiled by torch to fused kernels, and those that are."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

log = logging.getLogger(__name__)
SHAPES = 64  # for which one function may be compiled

_choice: ContextVar[bool | None] = ContextVar("choice", default=None)


@contextmanager
def fused(choice: bool) -> Iterator[None]:
    """Within the block kernels are fused, or nothing is: for what cannot be compiled (vmap),
    and to compare the two.
    """
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


def fuses(x: Tensor) -> bool:
    """Whether what is computed from ``x`` is computed by fused kernels: on a GPU,
    where something can be compiled.
    """
    choice = _choice.get()
    return x.is_cuda and compiles(x.device) if choice is None else choice


@lru_cache
def compiles(device: torch.device) -> bool:
    """Whether torch.compile works for a device: tried once, from nothing,
    as what it needs differs by version.
    """
    from torch._inductor import config

    # one compiled earlier would hide a missing compiler
    from torch._inductor.utils import fresh_cache

    try:
        with (
            TemporaryDirectory() as folder,
            fresh_cache(dir=folder),
            config.patch(compile_threads=1),
        ):
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # whatever it is: training goes on without
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
    """``function`` compiled for each shape it meets: each layer, in training,
    as frozen prefix and in validation.
    """
    fast = torch.compile(function, dynamic=False)

    def call(*values: object) -> object:
        # Beyond so many shapes torch goes back to single operations without a word. Such a setting
        # belongs to a thread (torch 2.15), and backward passes on a GPU have their own.
        if torch._dynamo.config.recompile_limit < SHAPES:
            torch._dynamo.config.recompile_limit = SHAPES
        return fast(*values)

    return call
