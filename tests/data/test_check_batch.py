import numpy as np
import pytest

from research.data.check_batch import check_batch


def batch(**changes):
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4)
    return {"tokens": tokens, "targets": tokens, "loss_mask": np.ones((2, 4), np.float32), **changes}


def test_a_good_batch_passes():
    check_batch(batch(), 8, 4)
    check_batch({"tokens": np.zeros((1, 2), np.int32)}, 1)


@pytest.mark.parametrize(
    ("changes", "vocab", "length", "match"),
    [
        ({}, 7, None, r"tokens holds ids 0\.\.7, the model's vocabulary has 7 \(first at \[1, 3\]\)"),
        ({"targets": np.full((2, 4), -1)}, 8, None, "targets holds ids -1"),
        ({"inputs": np.full((2, 9), 8)}, 8, None, "inputs holds ids 8"),
        ({}, 8, 3, "tokens are 4 long, the model takes at most 3"),
        ({"inputs": np.zeros((2, 9), int)}, 8, 4, "inputs are 9 long"),
        ({"loss_mask": np.zeros((2, 4))}, 8, None, "no token of this batch"),
        ({"loss_mask": np.full((2, 4), np.nan)}, 8, None, "not finite"),
        ({"positions": np.zeros((2, 3))}, 8, None, r"positions has shape \(2, 3\)"),
    ],
)
def test_bad_batches_are_refused_in_one_line(changes, vocab, length, match):
    with pytest.raises(ValueError, match=match) as error:
        check_batch(batch(**changes), vocab, length)
    assert "\n" not in str(error.value)


def test_tokens_are_required():
    with pytest.raises(ValueError, match="no 'tokens'"):
        check_batch({"inputs": np.zeros((1, 1))}, 4)
