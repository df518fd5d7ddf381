"""Random numbers as a pure function of a key, never of call order.

Every draw of the project is named by (seed, purpose, ...): so a network trained alone, in a cohort,
or after a restart sees the same numbers.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed for a key such as ``(seed, "order", epoch)``."""
    digest = hashlib.blake2b("\x1f".join(map(repr, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(*key: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*key)))


def torch_rng(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(*key))


def counter_uniform(seed: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers in [0, 1), float32: a function of ``seed`` (int64, one number) and the place alone,
    on every device.

    SplitMix64 (Steele, Lea & Flood 2014) of a counter, in plain operations: where a generator's
    state would have to be set from the host, this can be captured, fused and vectorized over
    networks.
    """
    golden = 0x9E3779B97F4A7C15
    # seed + golden * place modulo 2^64, with no product of a place and a large number: a compiler
    # takes a function of places alone for an index, and computes it with 32 bits.
    places = torch.arange(1, math.prod(shape) + 1, device=device)
    z = (seed * _signed(pow(golden, -1, 1 << 64)) + places) * _signed(golden)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 40).float() * 2**-24).reshape(shape)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """The logical right shift of int64 (torch's repeats the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    return value - (1 << 64) if value >> 63 else value
