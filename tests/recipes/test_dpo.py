"""DPO and its neighbours on models: the loss of answers scored one by one, wherever the reference comes from."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o
from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.data.packing import Example
from research.data.preference_rows import Coded, CodedPair, PreferencePairRows, PreferenceRows, WithReference
from research.data.sources import stack
from research.models import Model, build
from research.recipes.assemble import heads
from research.recipes.dpo import preference_loss, reference_logprobs, with_copy, without_adapter
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit

FAMILIES = ["llama", "t5"]
LORA = {"method": "lora", "rank": 2, "alpha": 4.0}
START, SOURCE, T = 2, 4, 9
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(3, 61, SOURCE).astype(np.int32) for _ in range(4)]
ANSWERS = [[RNG.integers(3, 61, n).astype(np.int32) for n in pair] for pair in ((3, 5), (1, 2), (5, 1), (2, 2))]
PREFERRED = [1.0, 1.0, 0.8, 0.5]


def rows_of(family, room=0):
    """The pairs above for a model of the family, with `room` for more padding."""
    made = list(zip(PROMPTS, ANSWERS, PREFERRED, strict=True))
    if family == "t5":
        coded = [CodedPair(p, *pair, sure) for p, pair, sure in made]
        return PreferencePairRows(coded, SOURCE + room, T + room, decoder_start_id=START)
    both = lambda p, a: Example(np.concatenate([p, a]), np.arange(len(p) + len(a)) >= len(p))  # noqa: E731
    coded = [Coded(both(p, pair[0]), both(p, pair[1]), len(p), sure) for p, pair, sure in made]
    return PreferenceRows(coded, T + room)


def batch_of(rows):
    rng = np.random.default_rng(0)
    return stack([rows.row(i, rng) for i in range(len(rows))])


class World(NamedTuple):
    """A model with adapters that are not zero any more, and what it and its base say, each answer scored alone."""

    family: str
    model: Model
    params: dict
    learns: dict
    policy: np.ndarray
    reference: np.ndarray


@pytest.fixture(scope="module", params=FAMILIES)
def world(request):
    model, base = tiny(request.param)
    params = weights.attach(base, LORA, jax.random.key(2))
    learns = weights.trainable(params, LORA)
    noise = np.random.default_rng(1)
    params = jax.tree.map(
        lambda w, on: np.asarray(w) + 0.3 * noise.normal(size=w.shape).astype(np.float32) if on else w, params, learns
    )
    said = [by_hand(request.param, model, p) for p in (params, weights.strip(params))]
    return World(request.param, model, params, learns, *said)


def by_hand(family, model, params):
    """log π of both answers of each pair, each scored alone, without padding in front of anything it may see."""

    @quick_jit
    def logits(params, batch):
        return model.logits(params, model.apply(params, batch).hidden)

    out = np.zeros((len(PROMPTS), 2))
    for p, prompt in enumerate(PROMPTS):
        for i, answer in enumerate(ANSWERS[p]):
            head = [START] if family == "t5" else list(prompt)
            tokens = np.zeros((1, T), np.int32)
            tokens[0, : len(head) + len(answer) - 1] = [*head, *answer[:-1]]
            batch = {"tokens": tokens} | ({"inputs": prompt[None]} if family == "t5" else {})
            z = np.asarray(logits(params, batch)[0], np.float64)
            logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
            out[p, i] = sum(logprobs[len(head) - 1 + t, token] for t, token in enumerate(answer))
    return out


def graded(model, params, learns, batch, **options):
    """((loss, aux), gradients of what learns)"""
    loss_fn = preference_loss(model, chunk=4, beta=0.3, **options)
    chosen, frozen = tree.split(params, learns)
    run = quick_jit(jax.value_and_grad(lambda c, f, b: loss_fn(tree.merge(c, f), b, None), has_aux=True))
    return run(chosen, frozen, batch)


def dpo_by_hand(policy, reference):
    h, p = 0.3 * ((policy - reference)[:, 0] - (policy - reference)[:, 1]), np.array(PREFERRED)
    return (p * np.log1p(np.exp(-h)) + (1 - p) * np.log1p(np.exp(h))).sum()


def test_the_loss_is_that_of_answers_scored_one_by_one_wherever_the_reference_is(world):
    family, model, params, learns, policy, reference = world
    assert np.abs((policy - reference) @ [1, -1]).min() > 0.01
    rows = rows_of(family, room=3)
    known = reference_logprobs(model, weights.strip(params), rows, batch_size=3, chunk=4)
    np.testing.assert_allclose(known, reference, rtol=1e-4)
    batch = batch_of(WithReference(rows, known))
    empty = {k: np.pad(v, [(0, 2)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    (loss, aux), grads = graded(model, params, learns, empty)
    np.testing.assert_allclose(loss, dpo_by_hand(policy, reference), rtol=1e-4)
    assert aux["weight"] == 4 and aux["metrics"]["accuracy"][1] == 3
    np.testing.assert_allclose(aux["metrics"]["reward_chosen"][0], 0.3 * (policy - reference)[:, 0].sum(), atol=1e-3)
    assert all(np.asarray(g).any() for g in jax.tree.leaves(grads))
    found = graded(model, params, learns, empty, reference="batch")
    chex.assert_trees_all_close(found, ((loss, aux), grads), rtol=1e-4, atol=1e-5)
    if family == "llama":
        both = {"policy": params, "reference": weights.strip(params)}
        mask = {"policy": learns, "reference": jax.tree.map(lambda _: False, both["reference"])}
        found = graded(model, both, mask, empty, reference="copy")
        chex.assert_trees_all_close((found[0], found[1]["policy"]), ((loss, aux), grads), rtol=1e-4, atol=1e-5)


def test_the_reference_below_adapters_is_no_copy():
    _, base = tiny("llama")
    params = weights.attach(base, LORA, jax.random.key(2))
    for name, leaf in tree.paths(without_adapter(params)).items():
        assert leaf is tree.paths(base)[name]
    both, learns = with_copy(base)
    assert all(a is not b for a, b in zip(*map(jax.tree.leaves, both.values()), strict=True))
    assert all(jax.tree.leaves(learns["policy"])) and not any(jax.tree.leaves(learns["reference"]))


@pytest.mark.parametrize("world", ["llama"], indirect=True)
def test_every_loss_is_given_what_it_is_made_of(world):
    family, model, params, _, policy, reference = world
    sides = [jnp.asarray(x, jnp.float32) for x in (policy, reference)]
    lengths = jnp.array([[len(a) for a in pair] for pair in ANSWERS], jnp.float32)
    p = {"preferred": jnp.array(PREFERRED)}
    options = {"robust": {"label_smoothing": 0.2}, "ipo": {"tau": 0.3}, "hinge": {"beta": 2.0}, "orpo": {"weight": 0.5}}
    wanted = {
        "robust": o.robust_dpo(*sides, label_smoothing=0.2, **p),
        "ipo": o.ipo(*sides, tau=0.3, lengths=lengths, **p),
        "ipo_sums": o.ipo(*sides, **p),
        "hinge": o.hinge(*sides, beta=2.0, **p),
        "simpo": o.simpo(sides[0], lengths, **p),
        "orpo": o.orpo(sides[0], lengths, weight=0.5, **p),
    }
    where = lambda name: {} if name in ("simpo", "orpo") else {"reference": "batch"}  # noqa: E731
    losses = {name: preference_loss(model, name, chunk=4, **where(name), **options.get(name, {})) for name in wanted}
    batch = batch_of(WithReference(rows_of(family), reference))
    found = quick_jit(lambda w, b: {name: loss(w, b, None) for name, loss in losses.items()})(params, batch)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4)


def updated(axes, accumulate):
    model, base = tiny("llama", vocab_size=64)
    batch = batch_of(WithReference(rows_of("llama"), np.linspace(-20, -5, 8).reshape(4, 2)))
    batch = {k: np.concatenate([v, v[::-1]]) for k, v in batch.items()}
    mesh = meshes.make_mesh(axes) if axes else None
    # Plain gradient descent at rate 1: a difference of weights is a difference of gradients.
    rule = {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}
    optimizer = optim.make(rule, base, steps=1)
    begin, frozen = state.create(base, optimizer, rng=jax.random.key(1), mesh=mesh, heads=heads(model.config))
    loss_fn = preference_loss(model, reference="batch", chunk=4)
    after, metrics = make_step(loss_fn, optimizer, accumulate=accumulate, mesh=mesh)(begin, frozen, batch)
    return {k: float(v) for k, v in metrics.items()}, jax.device_get(after.params)


def test_micro_batches_and_a_mesh_change_nothing():
    expected = updated(None, 1)
    assert expected[0]["grad_norm"] > 0.1
    found = updated({"data": 2, "fsdp": 2, "tensor": 2}, 2)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_training_comes_to_prefer_what_was_chosen():
    model, base = tiny("llama")
    params = weights.attach(base, LORA, jax.random.key(2))
    learns = weights.trainable(params, LORA)
    optimizer = optim.make({"learning_rate": 0.02, "schedule": "constant"}, tree.split(params, learns)[0], steps=12)
    at, frozen = state.create(params, optimizer, rng=jax.random.key(0), trainable=learns)
    step = make_step(preference_loss(model, chunk=4), optimizer)
    seen = []
    for _ in range(12):
        at, metrics = step(at, frozen, batch_of(rows_of("llama")))
        seen.append({k: float(v) for k, v in metrics.items()})
    np.testing.assert_allclose(seen[0]["loss"], np.log(2), rtol=1e-5)  # adapters begin at zero
    assert seen[-1]["loss"] < 0.9 * seen[0]["loss"] and seen[-1]["margin"] > 0 and seen[-1]["accuracy"] == 1


@pytest.mark.parametrize("world", ["llama"], indirect=True)
def test_products_in_half_precision_give_nearly_the_same_loss(world):
    family, model, params, _, policy, reference = world
    half = preference_loss(build(model.config, policy="bf16"), reference="batch", chunk=4, beta=0.3)
    loss, _ = quick_jit(lambda w, b: half(w, b, None))(params, batch_of(WithReference(rows_of(family), reference)))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, dpo_by_hand(policy, reference), rtol=0.05)
