"""Span corruption against T5's own test values (its repository's preprocessors_test; oracles.md, section 4)."""

import numpy as np
import pytest

from research.data import spans
from research.data.tokenizer import load_tokenizer

TOKENS = np.arange(10, 16)
MASK = np.array([1, 1, 0, 0, 1, 0], bool)
SENTINELS = spans.t5_sentinels(1000)


def test_helper_goldens():
    assert spans.random_spans_helper(64, 0.2, 2.0) == (70, 22)
    assert spans.random_spans_helper(64, 0.2, 1.0) == (63, 27)
    assert spans.random_spans_helper(512, 0.15, 3.0) == (568, 114)
    with pytest.raises(ValueError, match="leaves no room"):
        spans.random_spans_helper(1, 0.15, 3.0)


def test_helper_fills_the_inputs():
    for length in (16, 65, 200):
        for density in (0.1, 0.3, 0.5):
            tokens, targets = spans.random_spans_helper(length, density, 3.0)
            got = spans.corrupted_lengths(tokens, density, 3.0)
            assert got[0] <= length and got[1] <= targets
            if density < 0.5:
                assert spans.corrupted_lengths(tokens + 1, density, 3.0)[0] > length


def test_mask_counts():
    for seed in range(50):
        mask = spans.random_spans_noise_mask(32, 0.25, 2.0, np.random.default_rng(seed))
        assert mask.sum() == 8 and spans.span_starts(mask).sum() == 4 and not mask[0]
    assert not spans.random_spans_noise_mask(32, 0.0, 2.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 17, 100])
def test_mask_matches_the_counts_at_every_length(length):
    rng = np.random.default_rng(length)
    for density in (0.05, 0.15, 0.5, 0.9):
        for mean in (1.0, 3.0, 10.0):
            mask = spans.random_spans_noise_mask(length, density, mean, rng)
            noise, runs = spans.noise_counts(length, density, mean)
            assert mask.shape == (length,)
            assert (mask.sum(), spans.span_starts(mask).sum()) == ((noise, runs) if length > 1 else (0, 0))


def test_every_mask_of_a_small_case_is_reached():
    seen = {tuple(spans.random_spans_noise_mask(6, 0.5, 1.5, np.random.default_rng(s))) for s in range(300)}
    # 3 noise tokens in 2 spans, 3 kept in 2 runs: 2 x 2 masks.
    assert len(seen) == 4


def test_transform_goldens():
    assert spans.noise_span_to_unique_sentinel(TOKENS, MASK, SENTINELS).tolist() == [999, 12, 13, 998, 15]
    assert spans.noise_token_to_sentinel(TOKENS, MASK, 999).tolist() == [999, 999, 12, 13, 999, 15]
    assert spans.noise_span_to_sentinel(TOKENS, MASK, 999).tolist() == [999, 12, 13, 999, 15]
    assert spans.nonnoise_span_to_sentinel(TOKENS, MASK, 999).tolist() == [10, 11, 999, 14, 999]
    assert spans.drop_noise(TOKENS, MASK).tolist() == [12, 13, 15]
    assert spans.drop_nonnoise(TOKENS, MASK).tolist() == [10, 11, 14]
    with pytest.raises(ValueError, match="2 noise spans but only 1 sentinel"):
        spans.noise_span_to_unique_sentinel(TOKENS, MASK, [999])


def test_denoise_golden(data_dir):
    tokenizer = load_tokenizer(data_dir / "tokenizers" / "seqio_test_sentencepiece.model")
    tokens = np.array(tokenizer.encode("The quick brown fox."))
    mask = np.zeros(len(tokens), bool)
    mask[8] = mask[14:] = True
    sentinels = spans.t5_sentinels(26)
    inputs = spans.noise_span_to_unique_sentinel(tokens, mask, sentinels)
    targets = spans.nonnoise_span_to_unique_sentinel(tokens, mask, sentinels)
    assert inputs.tolist() == [3, 2, 20, 4, 3, 2, 8, 13, 25, 3, 2, 23, 7, 19, 24]
    assert targets.tolist() == [25, 2, 24, 22, 3, 2, 7, 2]


def test_inputs_and_targets_give_the_text_back():
    rng = np.random.default_rng(0)
    for n in (2, 9, 80):
        tokens = rng.integers(10, 500, n)
        mask = spans.random_spans_noise_mask(n, 0.3, 2.0, rng)
        inputs = spans.noise_span_to_unique_sentinel(tokens, mask, SENTINELS)
        targets = spans.nonnoise_span_to_unique_sentinel(tokens, mask, SENTINELS)
        pieces = {}
        for t in targets:
            if t >= 900:
                pieces[t] = current = []
            else:
                current.append(t)
        rebuilt = [x for t in inputs for x in (pieces[t] if t >= 900 else [t])]
        assert rebuilt == tokens.tolist()


def test_tokenizer_sentinels():
    from research.data.byte_tokenizer import ByteTokenizer

    tokenizer = ByteTokenizer(extra=[f"<extra_id_{i}>" for i in range(12)])
    assert spans.tokenizer_sentinels(tokenizer) == list(range(259, 271))
    with pytest.raises(ValueError, match="no sentinel tokens"):
        spans.tokenizer_sentinels(ByteTokenizer())
