"""Random numbers as a pure function of a key, never of call order.

Every draw of the project is named by (seed, purpose, ...): so a network trained alone, in a cohort, or after a
restart sees the same numbers.
"""

import hashlib

import numpy as np
import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed for a key such as ``(seed, "order", epoch)``."""
    digest = hashlib.blake2b("\x1f".join(map(repr, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed_of(*key)))


def torch_generator(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_of(*key))
