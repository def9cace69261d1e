"""Random numbers that depend on (seed, epoch, index of the image) alone, for many images at once.

They are hashes of where they are used, so there is no generator whose state a worker, a rank or a resume could have
advanced differently. The hash is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators"; its finaliser is Stafford's variant 13). Pure; numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLIP, BOX, SHIFT = 1, 2, 3  # what numbers are for: those of one purpose say nothing about those of another

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ALL_BITS = 2**64 - 1


def uniform(seed: int, epoch: int, indices: NDArray[np.int64], purpose: int, count: int) -> NDArray[np.float64]:
    """Return `count` numbers from 0 to below 1 for each of `indices` (n,), shape (n, count)."""
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed & _ALL_BITS, seed >> 64 & _ALL_BITS, epoch, purpose):
        key = _mix(key + _GOLDEN ^ np.uint64(part))
    states = _mix(key + _GOLDEN ^ indices.astype(np.uint64))
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(states[:, None] + steps) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))
