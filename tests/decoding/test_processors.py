"""The published golden cases of every logits processor, and agreement with transformers' classes on random rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.decoding import processors as P

INF = np.inf


def log(rows):
    return jnp.log(jnp.asarray(rows, jnp.float32))


def kept(logits):
    return np.asarray(jnp.exp(logits))


def ids(rows):
    return jnp.asarray(rows, jnp.int32)


# Golden cases of huggingface/transformers tests/generation/test_logits_process.py.


def test_top_k():
    rows = jnp.stack([jnp.arange(10.0), jnp.where(jnp.arange(10) < 5, jnp.arange(10.0) + 10, jnp.arange(10.0))])
    removed = np.isinf(P.top_k(rows, 3))
    assert removed.tolist() == [[True] * 7 + [False] * 3, [True, True, False, False, False] + [True] * 5]
    assert np.isinf(P.top_k(jnp.arange(5.0)[None], 1, min_keep=3)).sum() == 2
    assert not np.isinf(P.top_k(rows, 0)).any()  # 0 is off
    assert not np.isinf(P.top_k(rows, 99)).any()


def test_top_p():
    rows = log([[0.3, 0.1, 0.1, 0.5], [0.15, 0.3, 0.3, 0.25]])
    expected = [[0.3, 0, 0, 0.5], [0, 0.3, 0.3, 0.25]]
    np.testing.assert_allclose(kept(P.top_p(rows, 0.8)), expected, atol=1e-3)
    ramp = jnp.arange(10.0) - 5
    ramps = jnp.stack([ramp, 100 * ramp])
    assert (~np.isinf(P.top_p(ramps, 0.9, min_keep=2))).sum(-1).tolist() == [3, 2]
    assert not np.isinf(P.top_p(ramps, 1.0)).any()


def test_min_p():
    rows = log([[0.9, 0.0274, 0.047, 0.0274], [0.15, 0.3, 0.3, 0.25], [0.97, 0.01, 0.01, 0.01]])
    expected = [[0.9, 0, 0.047, 0], [0.15, 0.3, 0.3, 0.25], [0.97, 0, 0, 0]]
    np.testing.assert_allclose(kept(P.min_p(rows, 0.05)), expected, atol=1e-3)


def test_typical():
    rows = log([[0.97, 0.01, 0.01, 0.01], [0.4, 0.2, 0.2, 0.2]])
    expected = [[0.97, 0, 0, 0], [0, 0.2, 0.2, 0.2]]
    np.testing.assert_allclose(kept(P.typical(rows, 0.5)), expected, atol=1e-3)


def test_epsilon():
    rows = log([[0.87, 0.099, 0.001, 0.03], [0.4, 0.299, 0.101, 0.2]])
    expected = [[0.87, 0, 0, 0], [0.4, 0.299, 0.101, 0.2]]
    np.testing.assert_allclose(kept(P.epsilon(rows, 0.1)), expected, atol=1e-3)


def test_eta():
    rows = log([[0.0, 0.1, 0.8, 0.1], [0.01, 0.04, 0.9, 0.05]])
    expected = [[0.0, 0.1, 0.8, 0.1], [0, 0, 0.9, 0]]
    np.testing.assert_allclose(kept(P.eta(rows, 0.0625)), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("row", "share", "count"),
    [([0.97, 0.01, 0.01, 0.01], 0.3, 1), ([0.4, 0.3, 0.2, 0.1], 0.7, 2), ([0.25] * 4, 1.0, 4)],
)
def test_top_h(row, share, count):
    assert (~np.isinf(P.top_h(log([row]), share))).sum() == count


def test_temperature():
    peak = jnp.asarray([[1.0, 2.0, 3.0]])
    sharp, flat = (jax.nn.softmax(P.temperature(peak, t)) for t in (0.5, 1.3))
    assert sharp.max() > jax.nn.softmax(peak).max() > flat.max()
    uniform = jnp.full((1, 5), 1 / 5)
    np.testing.assert_allclose(jax.nn.softmax(P.temperature(uniform, 0.5)), uniform, atol=1e-6)
    per_row = P.temperature(jnp.ones((2, 3)), jnp.asarray([2.0, 0.0]))
    assert per_row.tolist() == [[0.5] * 3, [1.0] * 3]


def test_repetition_penalty():
    scores = jnp.asarray([[-0.1, 0.1, 0.4, 0.3]])
    out = P.repetition_penalty(scores, ids([[0, 1, 2, 3]]), ids([3]), 2.0)
    np.testing.assert_allclose(out, [[-0.2, 0.05, 0.2, 0.3]], rtol=1e-6)
    encoder = P.penalize(scores, P.seen(ids([[0, 2]]), ids([[1, 1]]) > 0, 4), 1 / 2.0)
    np.testing.assert_allclose(encoder, [[-0.05, 0.1, 0.8, 0.3]], rtol=1e-6)


def test_no_repeat_ngram():
    history, length = ids([[1, 1, 2, 1, 0, 0], [0, 1, 0, 1, 2, 2]]), ids([4, 4])
    zeros = jnp.zeros((2, 3))

    def banned(n):
        return np.isinf(P.no_repeat_ngram(zeros, history, length, n)).tolist()

    assert banned(2) == [[False, True, True], [True, False, False]]
    assert banned(3) == [[False, False, False], [True, False, False]]
    assert banned(1) == [[False, True, True], [True, True, False]]
    long = P.no_repeat_ngram(jnp.zeros((1, 9)), ids([[1, 2, 5, 7, 8, 5, 1, 2]]), ids([8]), 3)
    assert np.flatnonzero(np.isinf(long[0])).tolist() == [5]
    assert not np.isinf(P.no_repeat_ngram(zeros, history, ids([1, 0]), 2)).any()


def test_suppress_and_force():
    zeros = jnp.zeros((2, 4))
    early = P.suppress(zeros, ids([0]), ids([5, 15]) < 10)
    assert np.isinf(early).tolist() == [[True, False, False, False], [False] * 4]
    forced = P.force(zeros + 1, ids([3]), jnp.asarray([True, False]))
    assert forced.tolist() == [[-INF, -INF, -INF, 0.0], [1.0] * 4]


def test_ties_are_kept_together_whatever_the_order():
    row = jnp.asarray([[0.0, 3.0, 3.0, 3.0]])
    assert (~np.isinf(P.top_k(row, 2))).tolist() == [[False, True, True, True]]
    assert (~np.isinf(P.top_p(row, 0.4))).tolist() == [[False, True, True, True]]


def test_rows_take_their_own_values():
    rows = jax.random.normal(jax.random.key(0), (3, 50))
    k, p = ids([1, 7, 0]), jnp.asarray([0.2, 0.9, 1.0])
    for function, values in ((P.top_k, k), (P.top_p, p), (P.min_p, p), (P.typical, p), (P.epsilon, p / 20)):
        together = function(rows, values)
        for i in range(3):
            np.testing.assert_array_equal(together[i], function(rows[i : i + 1], values[i])[0])


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_equal_a_sort(seed):
    row = np.asarray(jax.random.normal(jax.random.key(seed), (40,)) * 3)
    order = np.argsort(-row)
    probs = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    size = int(np.searchsorted(np.cumsum(probs[order]), 0.7)) + 1
    assert set(np.flatnonzero(~np.isinf(P.top_p(jnp.asarray(row)[None], 0.7)[0]))) == set(order[:size])
    assert set(np.flatnonzero(~np.isinf(P.top_k(jnp.asarray(row)[None], 9)[0]))) == set(order[:9])


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_transformers(seed):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4, 211)).astype(np.float32) * (1 + seed)
    if seed == 2:  # rows in which an earlier processor has already banned tokens
        scores[rng.random(scores.shape) < 0.4] = -INF
    history = rng.integers(0, 12, (4, 30))
    length = ids([30] * 4)
    cases = [
        (reference.TemperatureLogitsWarper(0.7), lambda x: P.temperature(x, 0.7)),
        (reference.TopKLogitsWarper(17), lambda x: P.top_k(x, 17)),
        (reference.TopPLogitsWarper(0.83), lambda x: P.top_p(x, 0.83)),
        (reference.TopPLogitsWarper(0.1, min_tokens_to_keep=4), lambda x: P.top_p(x, 0.1, min_keep=4)),
        (reference.MinPLogitsWarper(0.06), lambda x: P.min_p(x, 0.06)),
        (reference.TypicalLogitsWarper(0.6), lambda x: P.typical(x, 0.6)),
        (reference.EpsilonLogitsWarper(0.01), lambda x: P.epsilon(x, 0.01)),
        (reference.EtaLogitsWarper(0.02), lambda x: P.eta(x, 0.02)),
        (reference.TopHLogitsWarper(0.4), lambda x: P.top_h(x, 0.4)),
        (reference.RepetitionPenaltyLogitsProcessor(1.7), lambda x: P.repetition_penalty(x, ids(history), length, 1.7)),
        (reference.NoRepeatNGramLogitsProcessor(2), lambda x: P.no_repeat_ngram(x, ids(history), length, 2)),
        (reference.NoRepeatNGramLogitsProcessor(3), lambda x: P.no_repeat_ngram(x, ids(history), length, 3)),
        (reference.SuppressTokensLogitsProcessor([3, 9]), lambda x: P.suppress(x, ids([3, 9]))),
    ]
    for theirs, ours in cases:
        expected = theirs(torch.tensor(history), torch.tensor(scores)).numpy()
        np.testing.assert_allclose(ours(jnp.asarray(scores)), expected, rtol=1e-5, err_msg=type(theirs).__name__)
