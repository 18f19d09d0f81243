"""Batches by length: every row once, little padding, shuffled."""

import numpy as np
import pytest

from research.data.length_batches import bucket, length_batches


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [0, 1, 5, 64, 131])
def test_every_row_comes_once(count, seed):
    lengths = np.random.default_rng(seed).integers(1, 100, count).tolist()
    for rng in (np.random.default_rng(seed), None):
        batches = length_batches(lengths, 4, rng, window=4)
        assert sorted(i for b in batches for i in b) == list(range(count))
        assert sum(len(b) < 4 for b in batches) == (count % 4 > 0)


def test_rows_of_a_batch_are_about_as_long_as_each_other():
    lengths = np.random.default_rng(0).integers(1, 100, 512).tolist()
    batches = length_batches(lengths, 8, np.random.default_rng(1))
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded < 1.15 * sum(lengths)  # 1.75 without
    firsts = [lengths[b[0]] for b in batches]
    assert firsts != sorted(firsts)
    assert batches != length_batches(lengths, 8, np.random.default_rng(2))
    assert batches == length_batches(lengths, 8, np.random.default_rng(1))


def test_buckets():
    assert [bucket(n, (32, 16)) for n in (1, 16, 17, 32)] == [16, 16, 32, 32]
    with pytest.raises(ValueError, match="33 tokens is longer than the largest bucket, 32"):
        bucket(33, (16, 32))
    with pytest.raises(ValueError, match="at least 1, given 0 and 16"):
        length_batches([1], 0, None)
