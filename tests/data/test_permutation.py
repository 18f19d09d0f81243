import numpy as np
import pytest

from research.data.permutation import mixed_key, permute


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 100, 255, 257, 1000, 4097])
def test_is_a_bijection(n):
    for key in (0, 1, mixed_key(3, 9)):
        image = permute(np.arange(n), n, key)
        assert sorted(image.tolist()) == list(range(n))
        assert [int(permute(i, n, key)) for i in range(min(n, 5))] == image[:5].tolist()


def test_large_domains_need_no_memory():
    n = 10**15
    image = permute(np.arange(1000), n, 7)
    assert len(set(image.tolist())) == 1000 and image.min() >= 0 and image.max() < n
    assert image.std() > n / 5


def test_looks_shuffled():
    n = 4000
    a, b = (permute(np.arange(n), n, mixed_key(0, epoch)) for epoch in (0, 1))
    for x, y in ((a, np.arange(n)), (a, b), (a[1:], a[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.06
    assert (a == b).sum() < 10
    # Every quarter of the order draws evenly from every quarter of the data.
    counts = np.histogram2d(np.arange(n), a, bins=4)[0]
    assert np.abs(counts - n / 16).max() < 60


def test_keys_and_errors():
    keys = {mixed_key(a, b) for a in range(20) for b in range(20)}
    assert len(keys) == 400 and mixed_key(1, 2) != mixed_key(2, 1)
    with pytest.raises(ValueError, match="negative"):
        mixed_key(-1)
    with pytest.raises(ValueError, match=r"outside \[0, 5\)"):
        permute(5, 5, 0)
    assert permute(np.zeros(0, int), 5, 0).shape == (0,)
