"""Generation with real models: the cache changes nothing in any family; a real checkpoint writes its known text."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.tokenizer import load_tokenizer
from research.decoding import Sampling, beam_search, generate, prepare, speculate
from research.decoding.prompts import pad_right
from research.interop.llama2c import load_llama2c
from research.models import build
from research.ops.cross_entropy import token_logprobs
from tests.models.conftest import NAMES, tiny

GENERATORS = sorted(name for name in NAMES if tiny(name)[0].config.kind != "encoder")
PROMPTS = [[5, 9, 12, 30, 7], [8], [40, 41, 42]]


@partial(jax.jit, static_argnums=0)
def trained_logprobs(model, params, batch):
    """Log-probabilities of each next token as a training step computes them: one forward pass, no cache."""
    features, weight, bias, cap = model.projection(params, model.apply(params, batch).hidden)
    return token_logprobs(features, weight, batch["targets"], bias=bias, cap=cap)


@pytest.mark.parametrize("name", GENERATORS)
def test_sampled_logprobs_are_the_trainers(name):
    model, params = tiny(name, n_layers=2)
    sided = model.config.kind == "encoder_decoder"
    start = [[3], [4, 5], [6]] if sided else PROMPTS
    out = generate(
        model, params, PROMPTS, max_new_tokens=10, sampling=Sampling(temperature=0.8, top_k=20), key=1,
        decoder_prompts=start if sided else None,
    )  # fmt: skip
    rows = [[*start[i], *out.ids(i)] for i in range(3)]
    tokens, segments = pad_right([row[:-1] for row in rows], 16)
    batch = {"tokens": tokens, "segment_ids": segments, "targets": pad_right([row[1:] for row in rows], 16)[0]}
    if sided:
        batch["inputs"], batch["input_segment_ids"] = pad_right(PROMPTS, 16)
    found = trained_logprobs(model, params, batch)
    for i in range(3):
        first = len(start[i]) - 1
        np.testing.assert_allclose(out.logprobs[i], found[i, first : first + 10], atol=1e-4)


@pytest.mark.parametrize("name", ["gemma3", "t5"])
def test_a_row_alone_equals_the_row_in_a_batch(name):
    model, params = tiny(name, n_layers=2)
    start = [[3]] if name == "t5" else None
    sampling = Sampling(temperature=1.0, top_p=0.9, no_repeat_ngram=2)
    together = generate(
        model, params, PROMPTS, max_new_tokens=10, sampling=sampling, decoder_prompts=start and start * 3
    )
    for i, prompt in enumerate(PROMPTS):
        alone = generate(
            model, params, [prompt], max_new_tokens=10, sampling=sampling, seeds=[i], decoder_prompts=start
        )
        assert alone.ids(0) == together.ids(i)
        np.testing.assert_allclose(alone.logprobs[0], together.logprobs[i], atol=1e-4)


def test_the_prompts_of_prefix_models_see_both_ways():
    model, params = tiny("llama", n_layers=2)
    out = generate(model, params, [[5, 9, 12, 30]], max_new_tokens=6, bidirectional_prompt=True)
    ids = [5, 9, 12, 30, *out.ids(0)]
    positions = np.arange(len(ids) - 1)
    batch = {"tokens": jnp.asarray([ids[:-1]]), "horizon": jnp.asarray([np.maximum(positions, 3)])}
    logits = np.asarray(model.logits(params, model.apply(params, batch).hidden)[0])
    assert logits[3:].argmax(-1).tolist() == out.ids(0)
    np.testing.assert_allclose(out.logprobs[0], jax.nn.log_softmax(logits[3:]).max(-1), atol=1e-4)


def test_lower_precision_reads_prepared_weights_to_the_same_text():
    model, params = tiny("llama", n_layers=2)
    model = build(model.config, policy="bf16")
    ready = prepare(model, params)
    assert ready["embed"]["tokens"]["embedding"].dtype == jnp.bfloat16
    assert ready["decoder"]["final_norm"]["scale"].dtype == jnp.float32
    one, two = (generate(model, weights, PROMPTS, max_new_tokens=8) for weights in (params, ready))
    assert one.tokens.tolist() == two.tokens.tolist()
    np.testing.assert_array_equal(one.logprobs, two.logprobs)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_greedy_speculation_is_greedy(name):
    model, params = tiny(name, n_layers=2)
    noisy = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(jax.random.key(2), x.shape), params)
    start = [[3]] * 3 if name == "bart" else None
    plain = generate(model, params, PROMPTS, max_new_tokens=12, decoder_prompts=start)
    out = speculate(model, params, model, noisy, PROMPTS, gamma=3, max_new_tokens=12, decoder_prompts=start)
    assert plain.near_ties.sum() == 0 and out.tokens.tolist() == plain.tokens.tolist()
    np.testing.assert_allclose(out.logprobs, plain.logprobs, atol=1e-4)


@pytest.fixture(scope="module")
def stories(data_dir):
    folder = data_dir / "stories260K"
    config, params = load_llama2c(folder / "checkpoint_v1.bin")
    model = build(config)
    golden = json.loads((data_dir / "golden" / "stories260K_golden.json").read_text())
    return model, prepare(model, params), load_tokenizer(folder / "tokenizer.bin"), golden


def test_stories260k_writes_its_published_text(stories):
    model, params, tokenizer, golden = stories
    out = generate(model, params, [[1]], max_new_tokens=200, tokenizer=tokenizer)
    assert out.ids(0) == golden["greedy_ids_from_bos"][1:201]
    assert out.texts[0].strip() == golden["published_greedy_200_steps"].strip()
    nll, count = golden["mean_nll"]["published greedy text"]
    assert -out.logprobs[0, : int(count)].mean() == pytest.approx(nll, abs=1e-3)


def test_stories260k_continues_prompts_in_one_batch(stories):
    model, params, _, golden = stories
    cases = golden["greedy"]
    out = generate(model, params, [case["prompt_ids"] for case in cases], max_new_tokens=48)
    assert [out.ids(i) for i in range(len(cases))] == [case["greedy_ids"] for case in cases]


def test_stories260k_beams(stories):
    """The best of four beams after ten steps: the golden's own search has no end token and no length penalty."""
    model, params, tokenizer, golden = stories
    prompt = tokenizer.encode("Once upon a time", bos=True)
    out = beam_search(model, params, [prompt], beams=4, returned=4, max_new_tokens=10, length_penalty=0.0)
    for i, beam in enumerate(golden["beam4_10steps"]):
        assert [*prompt, *out.ids(i)] == beam["ids"]
        assert out.scores[i] == pytest.approx(beam["sum_logprob"], abs=1e-3)
