"""A keyed permutation of [0, n) that stores nothing: shuffled reading without holding the data or its order."""

import numpy as np

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64-bit words whose every output bit depends on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mixed_key(*parts: int) -> int:
    """One 64-bit key from several non-negative integers, in order."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        if part < 0:
            raise ValueError(f"seeds and counters must not be negative, got {part}")
        key = _mix(key + _GOLDEN + np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return int(key[0])


def permute(index, n: int, key: int) -> np.ndarray:
    """Image of `index` (scalar or array, each in [0, n)) under the permutation of [0, n) that `key` names.

    A balanced Feistel network over the smallest even number of bits that holds n; images outside [0, n) are sent
    through again (cycle walking), at most four passes on average. See Black & Rogaway, *Ciphers with Arbitrary Finite
    Domains*, 2002. Raises ValueError for an index outside the range.
    """
    x = np.atleast_1d(np.asarray(index, np.int64))
    if x.size and (x.min() < 0 or x.max() >= n):
        raise ValueError(f"index outside [0, {n}): {int(x.min())}..{int(x.max())}")
    half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(mixed_key(key, r)) for r in range(_ROUNDS)]
    x = x.astype(np.uint64)
    pending = np.arange(x.size)
    while pending.size:
        left, right = x[pending] >> half, x[pending] & low
        for k in keys:
            left, right = right, left ^ (_mix(right + k) & low)
        x[pending] = (left << half) | right
        pending = pending[x[pending] >= np.uint64(n)]
    return x.astype(np.int64).reshape(np.shape(index))
