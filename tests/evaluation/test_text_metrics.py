"""ROUGE against the published numbers of ROUGE-1.5.5 and google-research/rouge; intervals and exact match."""

import math

import numpy as np
import pytest

from research.evaluation import bits_per_byte, bootstrap, exact_match, rouge

# Two lines of text without a common word give zero everywhere; "/" has no word at all.
SMALL = [
    ("testing", "testing one two", "rouge1", (1.0, 1 / 3, 0.5)),
    ("testing one", "testing one two", "rouge2", (1.0, 0.5, 2 / 3)),
    ("testing one", "testing one two", "rougeL", (1.0, 2 / 3, 0.8)),
    ("testing two", "testing one two", "rougeL", (1.0, 2 / 3, 0.8)),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", "rougeLsum", (0.4, 0.8, 0.5333333)),
    ("", "testing one two", "rouge1", (0.0, 0.0, 0.0)),
    ("/", "testing one two", "rougeL", (0.0, 0.0, 0.0)),
]


@pytest.fixture(scope="module")
def pairs(data_dir):
    folder = data_dir / "rouge_testdata"
    read = [(folder / name).read_text().splitlines() for name in ("prediction_large.txt", "target_large.txt")]
    assert len(read[0]) == len(read[1]) == 1000
    return read


def parts(scores: dict) -> tuple[float, float, float]:
    return scores["precision"].mean, scores["recall"].mean, scores["fmeasure"].mean


@pytest.mark.parametrize(("prediction", "reference", "kind", "expected"), SMALL)
def test_small_cases(prediction, reference, kind, expected):
    got = parts(rouge([prediction], [reference], kinds=[kind], samples=10)[kind])
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "stemmer", "kind", "expected"),
    [
        (0, False, "rouge1", (0.68750, 0.40741, 0.51163)),
        (0, True, "rougeL", (0.68750, 0.40741, 0.51163)),
        (1, False, "rouge1", (0.65385, 0.40476, 0.50000)),
        (1, True, "rougeL", (0.69231, 0.42857, 0.52941)),
        (0, False, "rouge2", (0.53333, 0.30769, 0.39024)),
        (1, False, "rouge2", (0.48000, 0.29268, 0.36364)),
    ],
)
def test_lines_of_the_published_files(pairs, line, stemmer, kind, expected):
    predictions, targets = pairs
    got = rouge([predictions[line]], [targets[line]], kinds=[kind], stemmer=stemmer, samples=10)[kind]
    np.testing.assert_allclose(parts(got), expected, atol=5e-6)


def test_summary_level_rouge_of_joined_lines(pairs):
    predictions, targets = ["\n".join(lines[:4]) for lines in pairs]
    got = rouge([predictions], [targets], kinds=["rougeLsum"], stemmer=True, samples=10)["rougeLsum"]
    np.testing.assert_allclose(parts(got), (0.66667, 0.36538, 0.47205), atol=5e-6)


@pytest.mark.parametrize(
    ("stemmer", "kind", "mean", "interval"),
    [
        (False, "rouge1", (0.49875, 0.31949, 0.38553), (0.37614, 0.39581)),
        (True, "rouge1", (0.52428, 0.33567, 0.40512), (0.39380, 0.41661)),
        (True, "rougeL", (0.52101, 0.33365, 0.40265), (0.39157, 0.41383)),
    ],
)
def test_means_and_intervals_over_a_thousand_pairs(pairs, stemmer, kind, mean, interval):
    scores = rouge(*pairs, kinds=[kind], stemmer=stemmer, seed=123)[kind]
    np.testing.assert_allclose(parts(scores), mean, atol=5e-6)
    np.testing.assert_allclose((scores["fmeasure"].low, scores["fmeasure"].high), interval, atol=2e-3)


def test_exact_match_normalizes_both_sides():
    predictions, references = ["a ", "B", "c", "d"], ["a", "b", "c", "x"]
    assert exact_match(predictions, references).mean == 0.5
    assert exact_match(predictions, references, normalize=lambda s: s.strip().lower()).mean == 0.75


def test_bootstrap_interval_covers_the_mean_and_shrinks_with_n():
    values = np.random.default_rng(0).normal(size=1600)
    wide, narrow = bootstrap(values[:100]), bootstrap(values)
    assert wide.low < values[:100].mean() < wide.high
    # The width of a mean's interval is 2 · 1.96 / √n standard deviations.
    assert math.isclose(narrow.high - narrow.low, 2 * 1.96 / 40, rel_tol=0.15)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert bootstrap(np.ones(5)) == (1.0, 1.0, 1.0)


def test_bits_per_byte_of_a_uniform_byte_model_is_eight():
    assert math.isclose(bits_per_byte(10 * math.log(256), 10), 8.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rouge(["a"], []), "1 and 0"),
        (lambda: rouge([], []), "0 and 0"),
        (lambda: rouge("text", "text"), "single text"),
        (lambda: rouge(["a"], ["a"], kinds=["rouge7"]), "rouge7.*rougeLsum"),
        (lambda: bootstrap(np.zeros(0)), "non-empty"),
        (lambda: bits_per_byte(1.0, 0), "0 bytes"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
