"""Random numbers as a pure function of a key, never of call order.

Every draw has a key (seed, purpose, ...), so a network gets the same numbers when trained alone, in
a cohort, or after a restart.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # statistics do not need torch, which takes more than a second to import
    import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed for a key such as ``(seed, "order", epoch)``."""
    digest = hashlib.blake2b("\x1f".join(map(repr, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(*key: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*key)))


def torch_rng(*key: int | str, device: "str | torch.device" = "cpu") -> "torch.Generator":
    import torch

    return torch.Generator(device).manual_seed(derive_seed(*key))
