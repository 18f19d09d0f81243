"""Speculative decoding changes the speed and not the distribution."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.decoding import Sampling, generate
from research.decoding.speculative import expected_tokens, judge, rewind, speculate
from research.ops import cache as caches

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 2]]


@pytest.fixture
def draft(table):
    """A draft that agrees with the table's model often, but not always."""
    model, params = table
    noise = 1.5 * jax.random.normal(jax.random.key(1), params["rows"]["kernel"].shape)
    return model, {"rows": {"kernel": params["rows"]["kernel"] + noise}}


@pytest.mark.parametrize("gamma", [1, 2, 5])
def test_greedy_speculation_is_greedy(table, draft, gamma):
    plain = generate(*table, PROMPTS, max_new_tokens=[20, 7, 13], stop_tokens=[3], min_new_tokens=4)
    out = speculate(*table, *draft, PROMPTS, gamma=gamma, max_new_tokens=[20, 7, 13], stop_tokens=[3], min_new_tokens=4)
    assert out.tokens.tolist() == plain.tokens.tolist() and out.reasons == plain.reasons
    np.testing.assert_allclose(out.logprobs, plain.logprobs, atol=1e-5)
    assert 0 < out.acceptance_rate < 1
    assert (out.lengths - 1 <= out.accepted + out.rounds).all()


def test_a_perfect_draft_is_always_kept(table):
    for sampling in (Sampling(), Sampling(temperature=1.0, top_p=0.9)):
        out = speculate(*table, *table, PROMPTS, gamma=3, max_new_tokens=17, sampling=sampling)
        assert out.acceptance_rate == 1.0 and out.rounds.tolist() == [4, 4, 4]  # 1 token, then 4 per round


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=1.0), Sampling(temperature=1.4, top_k=6, repetition_penalty=1.3, no_repeat_ngram=1)],
    ids=["plain", "knobs"],
)
def test_frequencies_are_the_targets(table, draft, sampling):
    """All texts of three tokens: speculative counts against counts of ordinary sampling, two-sample chi-square."""
    rows, steps = 6000, 3
    prompts = [[1, 2]] * rows
    one = speculate(*table, *draft, prompts, gamma=2, max_new_tokens=steps, sampling=sampling, key=1)
    two = generate(*table, prompts, max_new_tokens=steps, sampling=sampling, key=2)
    counts = [np.bincount(out.tokens @ np.asarray([121, 11, 1]), minlength=11**3) for out in (one, two)]
    total = counts[0] + counts[1]
    frequent = total >= 20
    pooled = [np.append(c[frequent], c[~frequent].sum()) for c in counts]
    total = pooled[0] + pooled[1]
    used = total > 0
    statistic = ((pooled[0] - pooled[1]) ** 2)[used] / total[used]
    freedom = used.sum() - 1
    assert freedom > 20
    assert statistic.sum() < freedom + 3.3 * np.sqrt(2 * freedom) + 4  # about p = 0.001
    assert 0.3 < one.acceptance_rate < 0.95


def test_frequencies_of_the_first_judged_token_are_exact(table, draft, raw_logits):
    """The second token (the first one that is judged) against the target's exact distribution."""
    rows = 8000
    out = speculate(
        *table, *draft, [[1, 2]] * rows, gamma=2, max_new_tokens=2, sampling=Sampling(temperature=1.0), key=4
    )
    first = np.asarray(jax.nn.softmax(raw_logits([1, 2])))
    expected = sum(first[t] * np.asarray(jax.nn.softmax(raw_logits([1, 2, t]))) for t in range(11)) * rows
    counts = np.bincount(out.tokens[:, 1], minlength=11)
    assert ((counts - expected) ** 2 / expected).sum() < 29.6  # 10 degrees of freedom, p = 0.001


def test_tokens_per_round_follow_the_formula(table):
    model, _ = table
    p = np.asarray([0.4, 0.3, 0.2, 0.1] + [1e-9] * 7)
    q = np.asarray([0.1, 0.3, 0.2, 0.4] + [1e-9] * 7)
    weights = [{"rows": {"kernel": jnp.log(jnp.asarray(x, jnp.float32))[None]}} for x in (p, q)]
    alpha, gamma = np.minimum(p, q).sum(), 3  # one state: every token is kept with the same probability
    out = speculate(
        model, weights[0], model, weights[1], [[1]] * 200, gamma=gamma, max_new_tokens=50,
        sampling=Sampling(temperature=1.0), key=8,
    )  # fmt: skip
    assert out.acceptance_rate == pytest.approx(alpha, abs=0.02)
    per_round = (out.accepted + out.rounds).sum() / out.rounds.sum()
    assert per_round == pytest.approx(expected_tokens(alpha, gamma), rel=0.02)


def test_expected_tokens():
    assert expected_tokens(0.75, 7) == pytest.approx(3.5995, abs=1e-4)  # the setting of the paper's EN-DE figure
    assert expected_tokens(1.0, 4) == 5 and expected_tokens(0.0, 4) == 1


def test_judge_by_hand():
    p = jnp.log(jnp.asarray([[[0.5, 0.5]], [[0.25, 0.75]]]))
    q = jnp.log(jnp.asarray([[[0.8, 0.2]]]))
    kept, rest = judge(p, q, jnp.asarray([[0]]), jnp.asarray([[0.6]]))  # 0.6 < 0.5 / 0.8
    assert kept.tolist() == [1] and np.allclose(jnp.exp(rest), [[0.25, 0.75]])
    kept, rest = judge(p, q, jnp.asarray([[0]]), jnp.asarray([[0.7]]))
    assert kept.tolist() == [0] and np.allclose(jnp.exp(rest), [[0.0, 0.3]])


def test_rewind_empties_slots():
    cache = caches.empty(2, 6, 1, 1, 1, jnp.float32)
    cache = caches.advance(cache, jnp.broadcast_to(jnp.arange(5), (2, 5)), jnp.ones((2, 5), jnp.int32))
    cache = rewind(cache, jnp.asarray([2, 5]))
    assert cache.next.tolist() == [2, 5]
    assert cache.positions.tolist() == [[0, 1, -1, -1, -1, -1], [0, 1, 2, 3, 4, -1]]
    assert cache.segments.tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]


def test_a_row_draws_its_own_noise(table, draft):
    sampling = Sampling(temperature=1.0)
    together = speculate(*table, *draft, PROMPTS, max_new_tokens=20, sampling=sampling, key=5)
    for i, prompt in enumerate(PROMPTS):
        alone = speculate(*table, *draft, [prompt], max_new_tokens=20, sampling=sampling, key=5, seeds=[i])
        assert alone.ids(0) == together.ids(i)


def test_up_to_the_end_of_the_model(table, draft, greedy):
    model, params = table
    model = replace(model, config=replace(model.config, max_length=20))
    out = speculate(model, params, model, draft[1], [[1, 2, 3]], gamma=4, max_new_tokens=18)
    assert out.ids(0) == greedy([1, 2, 3], 18)
    with pytest.raises(ValueError, match="room for 18 new tokens"):
        speculate(*table, model, draft[1], [[1, 2, 3]], max_new_tokens=19)


def test_streams_and_stop_strings(chain, letters):
    model, params = chain([1, 2, 7, 3, 10, 2, 7, 8, 1])
    pieces = []
    out = speculate(
        model, params, model, params, [[1]], gamma=3, max_new_tokens=9, tokenizer=letters, stop_strings=["STOP"],
        on_piece=pieces.append,
    )  # fmt: skip
    assert out.texts == ["abSTcéb"] == ["".join(piece.text for piece in pieces)]
    assert out.reasons == ["stop string"] and out.ids(0) == [1, 2, 7, 3, 10, 2, 7, 8]


def test_other_vocabularies_are_refused(table):
    model, params = table
    other = replace(model, config=replace(model.config, vocab_size=12))
    with pytest.raises(ValueError, match="draft model's vocab_size is 12, expected the model's 11"):
        speculate(model, params, other, params, [[1]])
    with pytest.raises(ValueError, match="gamma must be at least 1"):
        speculate(model, params, model, params, [[1]], gamma=0)
