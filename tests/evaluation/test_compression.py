"""The baselines against a dictionary implementation, a hand-computed case and known facts about compressors."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from research.evaluation import ngram_bits_per_byte, xz_bits_per_byte

TRAIN = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"]
HELD_OUT = ["the cat sat on the log", "a big dog"]


def windows(documents, context):
    """Every (history, next byte) of the padded documents, the end mark included."""
    for document in documents:
        data = b"\0" * context + document.encode() + b"\0"
        for i in range(context, len(data)):
            yield data[i - context : i], data[i]


def kneser_ney(train, context):
    """Interpolated Kneser-Ney with dictionaries: returns p(next | history)."""
    orders = []
    for kept in range(context + 1):
        counts = Counter()
        if kept == context:
            counts.update((h, c) for h, c in windows(train, context))
        else:
            for longer, c in {(h[context - kept - 1 :], c) for h, c in windows(train, context)}:
                counts[longer[1:], c] += 1
        once, twice = (sum(n == k for n in counts.values()) for k in (1, 2))
        heads = defaultdict(dict)
        for (h, c), n in counts.items():
            heads[h][c] = n
        orders.append((heads, once / (once + 2 * twice) if once else 0.5))

    def probability(history, byte):
        p = 1 / 256
        for kept, (heads, d) in enumerate(orders):
            seen = heads.get(history[len(history) - kept :])
            if seen:
                n = sum(seen.values())
                p = max(seen.get(byte, 0) - d, 0) / n + d * len(seen) / n * p
        return p

    return probability


@pytest.mark.parametrize("context", [0, 1, 2, 5, 7])
def test_ngram_equals_the_dictionary_implementation(context):
    p = kneser_ney(TRAIN, context)
    bits = -sum(math.log2(p(h, c)) for h, c in windows(HELD_OUT, context))
    expected = bits / sum(len(d) for d in HELD_OUT)
    np.testing.assert_allclose(ngram_bits_per_byte(TRAIN, HELD_OUT, context=context), expected, rtol=1e-9)


def test_dictionary_implementation_is_a_distribution():
    p = kneser_ney(TRAIN, 3)
    for history in (b"the", b"\0\0\0", b"zzz"):
        assert math.isclose(sum(p(history, byte) for byte in range(256)), 1.0, rel_tol=1e-9)


def test_known_text_is_cheap_and_noise_is_not():
    generator = np.random.default_rng(0)
    text = " ".join(generator.choice(["alpha", "beta", "gamma", "delta"], 4000))
    noise = "".join(map(chr, generator.integers(1, 128, 4000)))
    assert xz_bits_per_byte([text], [text]) < 0.1
    assert ngram_bits_per_byte([text], [text]) < 0.7  # two bits a word of 5.75 bytes, and the counts' uncertainty
    assert xz_bits_per_byte([text], [noise]) > 7 * 0.95  # seven random bits in every byte
    assert ngram_bits_per_byte([text], [noise]) > 7


@pytest.mark.parametrize("measure", [xz_bits_per_byte, ngram_bits_per_byte])
def test_documents_that_cannot_be_marked_are_refused(measure):
    for bad in ([], [""], ["a\0b"]):
        with pytest.raises(ValueError, match="zero byte"):
            measure(TRAIN, bad)


def test_context_must_fit_a_machine_word():
    with pytest.raises(ValueError, match="context=8"):
        ngram_bits_per_byte(TRAIN, HELD_OUT, context=8)
