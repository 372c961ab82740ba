"""Random numbers as hashes of their purpose, without any state.

A draw is a hash of (seed, epoch, sample, purpose). It is the same in any order, in any process and
with any version of a library, so a run can resume at step k, and any number of workers draw the
same batches.

The hash is the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators", figure 16), applied once for each part. Cost: some 10 ns per number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_UNIT = 2.0**-53


def hashes(seed: int, *parts: npt.ArrayLike) -> Hashes:
    """Return 64 random bits for each element of the broadcast integer `parts`, in order."""
    state: Hashes = _mix(np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    for part in parts:
        # Two's complement, so that -1 is a valid part.
        state = _mix(state ^ _mix(np.atleast_1d(part).astype(np.int64).view(np.uint64)))
    return state


def uniforms(seed: int, *parts: npt.ArrayLike) -> Floats:
    """Return a number in [0, 1) for each element of the broadcast integer `parts`."""
    return (hashes(seed, *parts) >> np.uint64(11)).astype(np.float64) * _UNIT


def shuffled(num: int, seed: int, *parts: int) -> Ints:
    """Return a permutation of 0 to `num` - 1."""
    return np.argsort(hashes(seed, *parts, np.arange(num)), kind="stable")


def _mix(state: Hashes) -> Hashes:
    """Apply a bijection of 64 bits; unsigned arithmetic wraps."""
    state = (state + _ONE) * _GAMMA
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = state ^ (state >> np.uint64(31))
    return mixed
