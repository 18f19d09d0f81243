"""Each leaf against its formula in plain numpy, in float64, with and without the layer axis, a bias and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import linear as rules
from research.weights.adapters import Bottleneck, Scaled
from research.weights.lora import DoRA, LoRA, Routed
from research.weights.prompts import SoftPrompt, nearest

I, O, R, B, T = 7, 5, 3, 2, 4


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(params=[0, 1, 2])
def parts(request):
    s = 100 * request.param
    base, a, b = numbers(s, I, O), numbers(s + 1, I, R), numbers(s + 2, R, O)
    return base, a, b, numbers(s + 3, B, T, I), numbers(s + 4, O)


def close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("biased", [True, False])
def test_lora_is_its_formula(parts, biased):
    base, a, b, x, bias = parts
    leaf = LoRA(*map(jnp.asarray, (base, a, b, np.float32(0.7))))
    weight = base.astype(np.float64) + 0.7 * a.astype(np.float64) @ b
    close(rules.linear(leaf, jnp.asarray(x), jnp.asarray(bias) if biased else None), x @ weight + biased * bias, 1e-4)
    close(rules.fold(leaf), weight)
    stacked = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), leaf)
    close(rules.fold(stacked)[1], rules.fold(jax.tree.map(lambda w: 2 * w, leaf)))
    assert leaf.shape == (I, O) and stacked.shape == (2, I, O)


def test_lora_on_a_table_reads_and_multiplies_the_same_weight(parts):
    base, a, b, x, _ = parts  # the table has I rows of width O
    leaf = LoRA(*map(jnp.asarray, (base, a, b, np.float32(0.7))))
    table = base + 0.7 * a @ b
    ids = jnp.array([[0, 3, 6]])
    close(rules.embed(leaf, ids), table[np.asarray(ids)])
    h = jnp.asarray(x[..., :O])
    close(rules.unembed(leaf, h), np.asarray(h) @ table.T, 1e-4)


def test_dropout_touches_the_adapter_only_and_keeps_the_mean(parts):
    base, a, b, x, _ = parts
    leaf = LoRA(*map(jnp.asarray, (base, a, b, np.float32(1))), dropout=0.4)
    x = jnp.asarray(x)
    plain = rules.linear(leaf, x)
    draws = jax.vmap(lambda k: rules.linear(leaf, x, None, k))(jax.random.split(jax.random.key(0), 4000))
    assert np.abs(draws[0] - plain).max() > 1e-3
    close(draws.mean(0), plain, 0.35)
    silent = leaf.replace(b=jnp.zeros_like(leaf.b))
    close(rules.linear(silent, x, None, jax.random.key(1)), rules.linear(silent, x))


def test_dora_is_its_formula_and_its_norm_is_a_constant_in_the_gradient(parts):
    base, a, b, x, bias = parts
    m = np.abs(numbers(9, O)) + 0.5
    leaf = DoRA(*map(jnp.asarray, (base, a, b, np.float32(0.7), m)))
    weight = base.astype(np.float64) + 0.7 * a.astype(np.float64) @ b
    gain = m / np.linalg.norm(weight, axis=0)
    close(rules.linear(leaf, jnp.asarray(x), jnp.asarray(bias)), x @ (weight * gain) + bias, 1e-4)
    close(rules.fold(leaf), weight * gain, 1e-5)
    g = numbers(10, B, T, O)
    grads = jax.grad(lambda w: jnp.sum(rules.linear(w, jnp.asarray(x)) * g))(leaf)
    outer = np.einsum("bti,bto->io", x.astype(np.float64), g * gain)
    close(grads.b, 0.7 * a.T @ outer, 1e-3)
    close(grads.a, 0.7 * outer @ b.T, 1e-3)
    close(grads.magnitude, (np.einsum("bti,bto->io", x, g) * weight).sum(0) / np.linalg.norm(weight, axis=0), 1e-3)


def test_scaled_multiplies_output_with_its_bias_or_input(parts):
    base, _, _, x, bias = parts
    out, into = np.abs(numbers(5, O)), np.abs(numbers(6, I))
    after = Scaled(jnp.asarray(base), jnp.asarray(out), "output")
    before = Scaled(jnp.asarray(base), jnp.asarray(into), "input")
    close(rules.linear(after, jnp.asarray(x), jnp.asarray(bias)), (x @ base + bias) * out, 1e-4)
    close(rules.linear(before, jnp.asarray(x), jnp.asarray(bias)), (x * into) @ base + bias, 1e-4)
    close(rules.fold(after), base * out)
    close(rules.fold(before), base * into[:, None])
    close(after.bias(jnp.asarray(bias)), bias * out)
    close(before.bias(jnp.asarray(bias)), bias)


def test_bottleneck_is_its_formula(parts):
    base, _, _, x, bias = parts
    down, low, up, high = numbers(11, O, R), numbers(12, R), numbers(13, R, O), numbers(14, O)
    leaf = Bottleneck(*map(jnp.asarray, (base, down, low, up, high)), activation="relu")
    y = x @ base + bias
    close(rules.linear(leaf, jnp.asarray(x), jnp.asarray(bias)), y + np.maximum(y @ down + low, 0) @ up + high, 1e-4)


def test_bf16_inputs_give_bf16_outputs_near_the_float32_ones(parts):
    base, a, b, x, bias = parts
    bias, x = jnp.asarray(bias), jnp.asarray(x)
    for leaf in (
        LoRA(*map(jnp.asarray, (base, a, b, np.float32(0.7)))),
        DoRA(*map(jnp.asarray, (base, a, b, np.float32(0.7), np.ones(O, np.float32)))),
        Scaled(jnp.asarray(base), jnp.ones(O), "output"),
        Bottleneck(*map(jnp.asarray, (base, b.T, a[0, :R], b, bias))),
        Routed(jnp.asarray(base), a[None], b[None], np.ones(1, np.float32), jnp.zeros(B, jnp.int32)),
    ):
        low = rules.linear(leaf, x.astype(jnp.bfloat16), bias)
        assert low.dtype == jnp.bfloat16
        close(low, np.asarray(rules.linear(leaf, x, bias)), 0.15)


@pytest.mark.parametrize("metric", ["cosine", "euclid"])
def test_nearest_words_of_a_prompt_are_those_of_a_loop(metric):
    table, prompt = numbers(0, 11, O), numbers(1, 3, O)
    leaf = SoftPrompt(jnp.asarray(table), jnp.asarray(prompt))
    ids, values = nearest({"embed": {"tokens": {"embedding": leaf}}}, 4, metric=metric)
    for row, vector in enumerate(prompt):
        if metric == "cosine":
            score = [-(v @ vector) / np.linalg.norm(v) / np.linalg.norm(vector) for v in table]
        else:
            score = [np.linalg.norm(v - vector) for v in table]
        best = np.argsort(score)[:4]
        assert ids[row].tolist() == best.tolist()
        close(np.abs(values[row]), np.abs(np.array(score)[best]), 1e-4)


def test_a_prompt_answers_for_its_own_ids_only():
    table, prompt = jnp.asarray(numbers(0, 11, O)), jnp.asarray(numbers(1, 3, O))
    leaf = SoftPrompt(table, prompt)
    close(rules.embed(leaf, jnp.array([0, 10, 11, 13])), np.stack([table[0], table[10], prompt[0], prompt[2]]))
    assert rules.unembed(leaf, jnp.ones((2, O))).shape == (2, 11)
