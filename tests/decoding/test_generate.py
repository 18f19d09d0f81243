"""Generation with a model whose every distribution is known: limits, stops, noise, padding, compilation, records."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.decoding import Sampling, generate, prepare, side_by_side
from research.decoding.loop import prefill
from research.decoding.prompts import bucket, shared_width
from tests.models.conftest import tiny

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 2]]


def test_greedy_equals_the_model_step_by_step(table, greedy):
    out = generate(*table, PROMPTS, max_new_tokens=9)
    for i, prompt in enumerate(PROMPTS):
        assert out.ids(i) == greedy(prompt, 9)
    assert out.reasons == ["length"] * 3
    assert out.tokens.dtype == np.int32 and out.tokens.shape == (3, 9)


def test_limits_per_row(table, greedy):
    out = generate(*table, PROMPTS, max_new_tokens=[5, 0, 2], pad=7)
    assert out.lengths.tolist() == [5, 0, 2]
    assert [out.ids(i) for i in range(3)] == [greedy(p, n) for p, n in zip(PROMPTS, [5, 0, 2], strict=True)]
    assert out.tokens[1].tolist() == [7] * 5 and out.tokens[2, 2:].tolist() == [7] * 3
    assert (out.logprobs[1] == 0).all()


@pytest.mark.parametrize("limit", [0, 1])
def test_no_and_one_new_token(table, greedy, limit):
    out = generate(*table, PROMPTS, max_new_tokens=limit, alternatives=2)
    assert [out.ids(i) for i in range(3)] == [greedy(p, limit) for p in PROMPTS]
    assert out.logprobs.shape == (3, limit) and out.alternatives.shape == (3, limit, 2)


def test_prompt_as_long_as_the_model(table, greedy):
    model, params = table
    model = replace(model, config=replace(model.config, max_length=20))
    prompt = [1 + i % 10 for i in range(20)]
    assert generate(model, params, [prompt, [3]], max_new_tokens=1).ids(0) == greedy(prompt, 1)
    with pytest.raises(ValueError, match=r"prompt 0 has 20 tokens and max_new_tokens is 2.*room for 1 new"):
        generate(model, params, [prompt], max_new_tokens=2)
    with pytest.raises(ValueError, match="prompt 1 has 21 tokens, the model takes at most 20"):
        generate(model, params, [[1], [*prompt, 1]], max_new_tokens=1)


def test_bad_requests_say_what_is_wrong(table):
    cases = {
        "prompt 1 is empty": ([[1], []], {}),
        "no prompt given": ([], {}),
        "prompt 0 holds token id 11, outside the model's vocabulary of 11": ([[1, 11]], {}),
        "list of lists": ([1, 2], {}),
        "min_new_tokens 5 exceeds max_new_tokens 4": ([[1]], {"max_new_tokens": 4, "min_new_tokens": 5}),
        "max_new_tokens must be whole numbers >= 0": ([[1]], {"max_new_tokens": -1}),
        "max_new_tokens has shape": ([[1]], {"max_new_tokens": [1, 2]}),
        "give the tokenizer": ([[1]], {"stop_strings": ["a"]}),
        "seeds has shape": ([[1]], {"seeds": [1, 2]}),
        "decoder_prompts are for encoder-decoder": ([[1]], {"decoder_prompts": [[1]]}),
        "needs 'tokens'": ({"inputs": np.ones((1, 2))}, {}),
        "stride must be at least 1": ([[1]], {"stride": 0}),
        "temperature has shape": ([[1]], {"sampling": Sampling(temperature=[1.0, 2.0])}),
        "has no encoder input": ([[1]], {"sampling": Sampling(encoder_repetition_penalty=2.0)}),
    }
    for message, (prompts, kwargs) in cases.items():
        with pytest.raises(ValueError, match=message):
            generate(*table, prompts, **{"max_new_tokens": 4, **kwargs})


def test_bad_sampling_says_what_is_wrong():
    cases = {
        r"top_p must lie in \(0, 1\], got 0": {"top_p": 0.0, "temperature": 1.0},
        "temperature must lie in": {"temperature": -1.0},
        "top_k must be a whole number": {"top_k": 1.5, "temperature": 1.0},
        "no_repeat_ngram must be at least 1": {"no_repeat_ngram": 0},
        "top_k, top_p act only when sampling": {"top_k": 3, "top_p": 0.5},
        "repetition_penalty must lie in": {"repetition_penalty": 0.0},
    }
    for message, kwargs in cases.items():
        with pytest.raises(ValueError, match=message):
            Sampling(**kwargs)


def test_batches_padded_on_either_side(table):
    left = np.asarray([[0, 0, 1, 2], [3, 4, 5, 6]])
    right = np.asarray([[1, 2, 0, 0], [3, 4, 5, 6]])
    texts = [
        generate(*table, {"tokens": ids, "segment_ids": ids > 0}, max_new_tokens=6).tokens.tolist()
        for ids in (left, right)
    ]
    assert texts[0] == texts[1] == generate(*table, [[1, 2], [3, 4, 5, 6]], max_new_tokens=6).tokens.tolist()


def test_stop_tokens_and_minimum_length(chain):
    model, params = chain([3, 1, 4, 2, 2])
    out = generate(model, params, [[1], [1]], max_new_tokens=5, stop_tokens=[4, 9])
    assert out.ids(0) == [3, 1, 4] and out.reasons == ["stop token"] * 2
    later = generate(model, params, [[1], [1]], max_new_tokens=5, stop_tokens=[4], min_new_tokens=[0, 4])
    assert later.ids(0) == [3, 1, 4] and 4 not in later.ids(1)[:3] and later.lengths[1] >= 4


def test_forced_and_suppressed_tokens(chain):
    model, params = chain([3, 1, 4, 2, 2])
    sampling = Sampling(forced_bos=9, forced_eos=8)
    out = generate(model, params, [[1], [2]], max_new_tokens=[4, 1], sampling=sampling, stop_tokens=[8])
    assert out.ids(0)[0] == 9 and out.ids(0)[3] == 8 and out.ids(1) == [8]
    assert 3 not in generate(model, params, [[1]], max_new_tokens=4, sampling=Sampling(suppress=[3])).ids(0)


def test_no_repeat_ngram_holds_inside_the_loop(table):
    plain = generate(*table, [[1, 2]], max_new_tokens=40).ids(0)
    assert len({tuple(plain[i : i + 2]) for i in range(39)}) < 39  # this model repeats itself
    ids = [1, 2, *generate(*table, [[1, 2]], max_new_tokens=40, sampling=Sampling(no_repeat_ngram=2)).ids(0)]
    pairs = [tuple(ids[i : i + 2]) for i in range(len(ids) - 1)]
    assert len(pairs) == len(set(pairs))


def test_all_knobs_compose_in_one_call(table, raw_logits):
    sampling = Sampling(
        temperature=[0.7, 1.2], top_k=6, top_p=[0.9, 0.8], min_p=0.02, typical_p=0.95, repetition_penalty=1.3, eta=0.01,
        epsilon=0.01, top_h=0.9, no_repeat_ngram=3, suppress=[10],
    )  # fmt: skip
    out = generate(*table, [[1, 2], [3]], max_new_tokens=12, sampling=sampling, processed_logprobs=True)
    for i in range(2):
        assert 10 not in out.ids(i)
        ids = [[1, 2], [3]][i]
        for t, token in enumerate(out.ids(i)):
            raw = raw_logits(ids) - jax.nn.logsumexp(raw_logits(ids))
            np.testing.assert_allclose(out.logprobs[i, t], raw[token], atol=1e-5)
            ids = [*ids, token]
    assert np.isfinite(out.processed_logprobs).all() and (out.processed_logprobs <= 1e-6).all()
    assert (out.processed_logprobs > out.logprobs).mean() > 0.5  # filters move mass to what is left


def test_sampled_frequencies_are_the_models(table, raw_logits):
    rows = 4000
    out = generate(*table, [[1, 2]] * rows, max_new_tokens=1, sampling=Sampling(temperature=1.5), key=3)
    counts = np.bincount(out.tokens[:, 0], minlength=11)
    expected = np.asarray(jax.nn.softmax(raw_logits([1, 2]) / 1.5)) * rows
    assert ((counts - expected) ** 2 / expected).sum() < 29.6  # chi-square, 10 degrees of freedom, p = 0.001


def test_a_row_draws_its_own_noise(table):
    sampling = Sampling(temperature=1.0)
    together = generate(*table, PROMPTS, max_new_tokens=20, sampling=sampling, key=5)
    for i, prompt in enumerate(PROMPTS):
        alone = generate(*table, [prompt], max_new_tokens=20, sampling=sampling, key=5, seeds=[i])
        assert alone.ids(0) == together.ids(i)
    assert together.ids(0) != generate(*table, PROMPTS, max_new_tokens=20, sampling=sampling, key=6).ids(0)
    same = generate(*table, [[1]] * 2, max_new_tokens=20, sampling=sampling)
    assert same.ids(0) != same.ids(1)


def test_greedy_rows_beside_sampling_rows(table, greedy):
    sampling = Sampling(temperature=[0.0, 1.0, 0.0], top_p=0.9)
    out = generate(*table, PROMPTS, max_new_tokens=8, sampling=sampling)
    assert out.ids(0) == greedy(PROMPTS[0], 8) and out.ids(2) == greedy(PROMPTS[2], 8)


def test_near_ties_are_counted(chain):
    model, params = chain([3, 1])
    kernel = params["rows"]["kernel"].at[1, 5].set(5.0 - 1e-6)  # after the prompt, 3 wins by a rounding error
    out = generate(model, {"rows": {"kernel": kernel}}, [[1]], max_new_tokens=2)
    assert out.ids(0)[0] == 3 and out.near_ties.tolist() == [1]
    assert generate(model, params, [[1]], max_new_tokens=2).near_ties.tolist() == [0]


def test_alternatives_are_the_best_of_the_raw_distribution(table, raw_logits):
    out = generate(*table, [[1, 2]], max_new_tokens=3, alternatives=4, sampling=Sampling(temperature=2.0, top_k=2))
    ids = [1, 2]
    for t, token in enumerate(out.ids(0)):
        raw = raw_logits(ids) - jax.nn.logsumexp(raw_logits(ids))
        best = np.argsort(-raw)[:4]
        assert out.alternatives[0, t].tolist() == best.tolist()
        np.testing.assert_allclose(out.alternative_logprobs[0, t], raw[best], atol=1e-5)
        ids.append(token)


def test_nothing_recorded_that_was_not_asked_for(table):
    out = generate(*table, [[1]], max_new_tokens=2, logprobs=False)
    assert out.logprobs is None and out.processed_logprobs is None and out.alternatives is None and out.texts is None


def test_compiles_once_per_bucket(table):
    model, params = table
    chex.clear_trace_counter()

    class Counted(type(model)):  # a fresh type, so that nothing is compiled yet
        @chex.assert_max_traces(n=2)  # one program reads prompts, one takes steps
        def apply(self, params, batch, *, cache=None):
            return super().apply(params, batch, cache=cache)

    model = Counted(model.config)
    for length, temperature, new in [(17, 0.5, 17), (20, 0.9, 20), (23, [0.1], 24), (24, 1.7, 18)]:
        prompt = [1 + i % 9 for i in range(length)]
        generate(model, params, [prompt], max_new_tokens=new, sampling=Sampling(temperature=temperature, top_p=0.9))
    pieces = []  # streaming runs the same program
    generate(
        model, params, [[1] * 18], max_new_tokens=19, sampling=Sampling(temperature=1.0, top_p=0.3),
        on_piece=pieces.append,
    )  # fmt: skip
    assert len(pieces) == 19


def test_calls_of_one_width_share_a_program(table, greedy):
    model, params = table
    run = prefill._cache_size
    generate(model, params, [[1] * 30], max_new_tokens=17, width=30)
    before = run()
    for prompt, new in (([2], 1), ([3] * 17, 20), ([4] * 32, 24)):  # buckets of 16, 24 and 32; of 16 and 24
        assert generate(model, params, [prompt], max_new_tokens=new, width=30, room=24).ids(0) == greedy(prompt, new)
    assert run() == before
    assert shared_width([[1] * 5, [1] * 9], 1) == 9 and shared_width([[1]] * 17, 2) == 1 and shared_width([], 4) == 1


def test_a_soft_prompt_comes_on_top_of_the_width():
    model, params = tiny("llama", n_layers=1, max_length=64)
    soft = weights.attach(params, {"method": "prompt", "length": 20}, jax.random.key(0), config=model.config)
    generate(model, soft, [[1] * 30], max_new_tokens=4, width=30)
    before = prefill._cache_size()
    generate(model, soft, [[2] * 5], max_new_tokens=4, width=30)
    assert prefill._cache_size() == before


def test_buckets():
    sizes = [bucket(n) for n in range(1, 3000)]
    assert all(size >= n for n, size in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert all(size <= 1.5 * n for n, size in enumerate(sizes, 1) if n > 16) and len(set(sizes)) < 22


def test_prepare_changes_no_number(table):
    model, params = table
    ready = prepare(model, params)
    assert prepare(model, ready)["rows"]["kernel"] is ready["rows"]["kernel"]
    chex.assert_trees_all_equal(jax.tree.map(jnp.asarray, params), ready)


def test_samplings_side_by_side_equal_each_alone(table):
    model, params = table
    mixed = [
        Sampling(),
        Sampling(temperature=0.9, top_k=3),
        Sampling(temperature=1.3, top_p=0.7),
        Sampling(temperature=1.0),
    ]
    prompt = [[4, 5, 6]]
    together = generate(model, params, prompt * 4, max_new_tokens=6, sampling=side_by_side(mixed), seeds=[2] * 4)
    for row, sampling in enumerate(mixed):
        alone = generate(model, params, prompt, max_new_tokens=6, sampling=sampling, seeds=[2])
        assert together.ids(row) == alone.ids(0)
    with pytest.raises(ValueError, match="no_repeat_ngram is the same for all rows; given \\[None, 2\\]"):
        side_by_side([Sampling(), Sampling(no_repeat_ngram=2)])
    with pytest.raises(ValueError, match="top_h cannot be off in some rows"):
        side_by_side([Sampling(temperature=1.0), Sampling(temperature=1.0, top_h=0.4)])
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])
