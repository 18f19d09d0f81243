"""Properties that every family must have, whatever its row of choices."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import tree
from research.models import build
from tests.models.conftest import tiny, tiny_config

T = 9


def batch_for(model, rows=2, length=T, seed=3):
    config = model.config
    ids = jax.random.randint(jax.random.key(seed), (rows, length), 3, config.vocab_size)
    batch = {"tokens": ids}
    if config.kind == "encoder_decoder":
        batch["inputs"] = jax.random.randint(jax.random.key(seed + 1), (rows, length - 2), 3, config.vocab_size)
    return batch


@partial(jax.jit, static_argnums=0)
def hidden(model, params, batch, rng=None):
    """One program for each shape, shared by the tests."""
    return model.apply(params, batch, rng=rng).hidden


@partial(jax.jit, static_argnums=0)
def insides(model, params, batch):
    return model.apply(params, batch, hidden_states=True, attentions=True)


def test_scanned_unrolled_and_cut_programs_agree(family):
    model, params = tiny(family)
    batch = batch_for(model)
    scanned, unrolled = insides(model, params, batch), insides(model, tree.unstack(params), batch)
    chex.assert_trees_all_close(scanned, unrolled, rtol=1e-4, atol=1e-5)
    cut = hidden(model, tree.cut(params, [1]), batch)
    chex.assert_trees_all_close(scanned.hidden, cut, rtol=1e-4, atol=1e-5)
    L = model.config.n_layers
    assert scanned.hidden_states.shape == (L + 1, 2, T, 32)
    assert scanned.attentions.shape == (L, 2, 4, T, T)
    np.testing.assert_allclose(scanned.hidden_states[-1], scanned.hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(scanned.attentions, -1), 1, rtol=1e-4)


def test_cached_decoding_equals_the_full_forward(family):
    model, params = tiny(family)
    if model.config.kind == "encoder":
        with pytest.raises(ValueError, match="an encoder has no cache"):
            model.start(params, batch_for(model), 8)
        return
    batch = batch_for(model)
    full, params = hidden(model, params, batch), tree.unstack(params)
    step = jax.jit(lambda tokens, cache: model.apply(params, {"tokens": tokens}, cache=cache))
    out = step(batch["tokens"][:, :4], model.start(params, batch, T + 2))
    pieces = [out.hidden]
    for t in range(4, T):
        out = step(batch["tokens"][:, t : t + 1], out.cache)
        pieces.append(out.hidden)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), full, rtol=1e-4, atol=1e-4)
    assert np.asarray(out.cache.next).tolist() == [T, T]


def test_packed_documents_do_not_see_each_other(family):
    model, params = tiny(family)
    if model.config.kind == "encoder_decoder":
        pytest.skip("pairs are packed on both sides: tests/models/test_model.py::test_packed_pairs")
    first, second = batch_for(model, 1, 4, 5)["tokens"], batch_for(model, 1, 5, 6)["tokens"]
    packed = {
        "tokens": jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], 1),
        "segment_ids": jnp.array([[1] * 4 + [2] * 5 + [0] * 2]),
    }
    run = partial(hidden, model, params)
    together = run(packed)
    np.testing.assert_allclose(together[:, :4], run({"tokens": first}), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together[:, 4:9], run({"tokens": second}), rtol=1e-4, atol=1e-5)
    assert np.isfinite(together).all()


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_packed_pairs_do_not_see_each_other(name):
    model, params = tiny(name)
    pairs = [batch_for(model, 1, length, seed) for length, seed in ((4, 5), (6, 7))]
    packed = {
        "tokens": jnp.concatenate([p["tokens"] for p in pairs], 1),
        "segment_ids": jnp.array([[1] * 4 + [2] * 6]),
        "inputs": jnp.concatenate([p["inputs"] for p in pairs], 1),
        "input_segment_ids": jnp.array([[1] * 2 + [2] * 4]),
    }
    run = partial(hidden, model, params)
    together = run(packed)
    np.testing.assert_allclose(together[:, :4], run(pairs[0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together[:, 4:], run(pairs[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_real_tokens(family, side):
    model, params = tiny(family)
    batch = batch_for(model, 1, 5)
    pad = (6, 0) if side == "left" else (0, 6)
    padded = dict(batch)
    for name, segments in [("tokens", "segment_ids"), ("inputs", "input_segment_ids")]:
        if name in batch:
            padded[segments] = jnp.pad(jnp.ones_like(batch[name]), ((0, 0), pad))
            padded[name] = jnp.pad(batch[name], ((0, 0), pad), constant_values=2)
    run = partial(hidden, model, params)
    real = slice(pad[0], pad[0] + 5)
    np.testing.assert_allclose(run(padded)[:, real], run(batch), rtol=1e-4, atol=1e-5)


def test_the_future_is_invisible_to_decoders_and_visible_to_encoders(family):
    model, params = tiny(family)
    batch = batch_for(model)
    changed = dict(batch, tokens=batch["tokens"].at[:, -1].set(3))
    run = partial(hidden, model, params)
    difference = jnp.abs(run(batch) - run(changed))[:, :-1].max()
    assert (difference > 1e-4) if model.config.kind == "encoder" else (difference == 0)


def test_prefix_tokens_see_each_other_and_nothing_behind_them():
    model, params = tiny("llama")
    batch = batch_for(model)
    horizon = jnp.maximum(jnp.arange(T), 4 - 1)[None].repeat(2, 0)
    base, inside, behind = (
        hidden(model, params, {"tokens": tokens, "horizon": horizon})
        for tokens in (batch["tokens"], batch["tokens"].at[:, 3].set(3), batch["tokens"].at[:, 4].set(3))
    )
    inside, behind = jnp.abs(base - inside), jnp.abs(base - behind)
    assert (inside[:, 0].max() > 1e-4) and (behind[:, :4].max() == 0)


def squares(params, model):
    projection = model.projection(params, model.apply(params, batch_for(model)).hidden)
    bias = 0 if projection.bias is None else jnp.sum(projection.bias**2)
    return jnp.sum((projection.features @ projection.weight.T) ** 2) * 1e-3 + bias


gradient = jax.jit(jax.grad(squares), static_argnums=1)


def test_every_weight_gets_a_gradient(family):
    model, params = tiny(family)
    plain = gradient(params, model)
    flat = [path for path, leaf in tree.paths(plain).items() if not np.abs(leaf).max() > 0]
    # Softmax does not feel a constant added to all keys; nothing else may be flat.
    assert all(path.endswith("/k/bias") for path in flat), flat


@pytest.mark.parametrize("name", ["gpt2", "t5"])
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_gradient(name, remat):
    model, params = tiny(name)
    other = gradient(params, build(model.config, remat=remat))
    chex.assert_trees_all_close(gradient(params, model), other, rtol=1e-4, atol=1e-5)


def test_dropout_needs_a_key_is_fixed_by_it_and_is_the_same_unrolled():
    model = build(tiny_config("gpt2", embed_dropout=0.2, attention_dropout=0.2, residual_dropout=0.2))
    params = tiny("gpt2")[1]
    batch = batch_for(model)
    first, again, other = (hidden(model, params, batch, jax.random.key(seed)) for seed in (0, 0, 1))
    off = hidden(model, params, batch)
    np.testing.assert_array_equal(first, again)
    assert jnp.abs(first - other).max() > 1e-3 and jnp.abs(first - off).max() > 1e-3
    unrolled = hidden(model, tree.unstack(params), batch, jax.random.key(0))
    np.testing.assert_allclose(unrolled, first, rtol=1e-4, atol=1e-5)


def test_bf16_compute_keeps_f32_masters_and_gives_f32_logits():
    config = tiny_config("llama")
    model = build(config, policy="bf16")
    params = tiny("llama")[1]
    batch = batch_for(model)
    out = jax.jit(lambda p: model.apply(p, batch))(params)
    logits = model.logits(params, out.hidden)
    assert out.hidden.dtype == jnp.bfloat16 and logits.dtype == jnp.float32
    exact = tiny("llama")[0]
    wide = exact.logits(params, exact.apply(params, batch).hidden)
    assert jnp.abs(logits - wide).max() < 0.1 * jnp.abs(wide).max()
    assert build(config, policy="pure_bf16").abstract()["embed"]["tokens"]["embedding"].dtype == jnp.bfloat16


@pytest.mark.parametrize("head", ["sequence", "token", "scalar"])
@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_classification_heads_read_the_right_position(name, head):
    model = build(tiny_config(name, head=head, n_labels=3, eos_id=2))
    params = jax.jit(model.init)(jax.random.key(0))
    batch = batch_for(model)
    batch["tokens"] = batch["tokens"].at[0, 5].set(2).at[1, 7].set(2)
    batch["segment_ids"] = jnp.ones((2, T), jnp.int32).at[0, 6:].set(0).at[1, 8:].set(0)
    if "inputs" in batch:  # what is classified is what the encoder reads
        batch |= {"inputs": batch["tokens"], "input_segment_ids": batch["segment_ids"]}
    score = jax.jit(lambda b: model.classify(params, model.apply(params, b), b))
    scores = score(batch)
    assert scores.shape == {"sequence": (2, 3), "token": (2, T, 3), "scalar": (2,)}[head]
    short = {k: v[:1, :6] for k, v in batch.items()}
    expected = score(short)[0]
    np.testing.assert_allclose(scores[0, :6] if head == "token" else scores[0], expected, rtol=1e-4, atol=1e-5)


def test_a_head_that_the_model_lacks_is_refused():
    model, params = tiny("llama")
    out = model.apply(params, batch_for(model))
    with pytest.raises(ValueError, match="the model has head 'lm'; this needs one of"):
        model.classify(params, out, batch_for(model))


def test_a_sequence_longer_than_a_learned_table_is_refused():
    model, params = tiny("gpt2")
    with pytest.raises(ValueError, match="25 tokens do not fit the model's max_length 24"):
        model.apply(params, batch_for(model, 1, 25))


def test_one_trace_serves_all_batches_of_a_shape():
    model, params = tiny("llama")
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, batch):
        return model.apply(params, batch).hidden

    for seed in range(3):
        run(params, batch_for(model, seed=seed))
