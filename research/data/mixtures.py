"""Several sources as one, in fixed proportions, still a pure function of the position."""

from collections.abc import Mapping

import numpy as np

from .permutation import mixed_key, permute
from .sources import Row, Stream

_BLOCK = 4096


def mixing_rates(sizes: Mapping[str, float], *, cap: float | None = None, temperature: float = 1.0) -> dict[str, float]:
    """Shares ∝ min(size, cap)^(1/temperature): examples-proportional mixing, capped and tempered as T5 does.

    Temperature 1 is proportional, larger is closer to equal. See arXiv:1910.10683, section 3.5.2.
    """
    if not sizes or min(sizes.values()) <= 0:
        raise ValueError(f"sizes must be positive and at least one, got {dict(sizes)}")
    if temperature <= 0 or (cap is not None and cap <= 0):
        raise ValueError(f"temperature and cap must be positive, got {temperature} and {cap}")
    weights = {k: min(n, cap if cap is not None else n) ** (1 / temperature) for k, n in sizes.items()}
    total = sum(weights.values())
    return {k: w / total for k, w in weights.items()}


class Mixture:
    """An endless stream that takes its positions from several streams by `rates` (they are normalised).

    Positions fall into blocks of 4096; within each the counts are exactly the rates (rounded by largest remainder, at
    least one), in an order drawn from (seed, block). So any position is found without replaying those before it. Every
    row carries its `part`: the number of its stream among the sorted names.
    """

    def __init__(self, streams: Mapping[str, Stream], rates: Mapping[str, float], *, seed: int = 0):
        if set(streams) != set(rates):
            raise ValueError(f"rates are for {sorted(rates)}, sources are {sorted(streams)}")
        if not streams or min(rates.values()) <= 0 or len(streams) > _BLOCK:
            raise ValueError(f"rates must be positive and between 1 and {_BLOCK}, got {dict(rates)}")
        self.names = sorted(streams)
        self.streams, self.seed = dict(streams), seed
        share = np.array([rates[k] for k in self.names], float)
        exact = share / share.sum() * _BLOCK
        counts = np.maximum(np.floor(exact).astype(int), 1)
        while counts.sum() != _BLOCK:
            # One at a time: the largest remainder grows, or the most over-served source shrinks.
            error = exact - counts
            if counts.sum() < _BLOCK:
                counts[int(error.argmax())] += 1
            else:
                counts[int(np.argmin(np.where(counts > 1, error, np.inf)))] -= 1
        self._ends = np.cumsum(counts)
        self.counts = dict(zip(self.names, counts.tolist(), strict=True))

    def __len__(self) -> int:
        """Rows until the source that runs out last (counted by its rate) has been seen once."""
        return max(-(-len(self.streams[k]) * _BLOCK // self.counts[k]) for k in self.names)

    def locate(self, position: int) -> tuple[str, int]:
        """The source at `position` and the position within that source's own stream."""
        block, within = divmod(position, _BLOCK)
        slot = int(permute(within, _BLOCK, mixed_key(self.seed, block)))
        k = int(np.searchsorted(self._ends, slot, side="right"))
        name = self.names[k]
        first = int(self._ends[k]) - self.counts[name]
        return name, block * self.counts[name] + slot - first

    def at(self, position: int, rng: np.random.Generator) -> Row:
        name, within = self.locate(position)
        # Which part a row is of, so that the loss of each can be told.
        return {**self.streams[name].at(within, rng), "part": np.asarray(self.names.index(name), np.int32)}

    def describe(self) -> dict:
        parts = {k: self.streams[k].describe() for k in self.names}
        return {"mixture": parts, "counts": self.counts, "seed": self.seed}
