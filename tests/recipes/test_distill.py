"""Distillation on models of several families against loops over the logits and states that the models give alone."""

import json

import chex
import jax
import numpy as np
import pytest

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.data.packing import Example
from research.data.rows import PaddedRows
from research.data.sources import stack
from research.recipes import stored_teacher
from research.recipes.distill import Match, beside_teacher, distillation_loss, match_projections
from research.recipes.rollouts import Writer
from research.recipes.samples import OnPolicy, teacher_writes
from research.recipes.stored_teacher import WithTeacher, store_teacher
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit

B, T, S, V = 3, 7, 5, 61
SMALL = {"n_layers": 2, "d_model": 16, "n_heads": 2}
# name -> family, more of both configs, the student's and the teacher's stacks compared, those of an encoder beside them
CASES = {
    "decoder": ("llama", {}, Match(hidden=((1, 2), (2, 3)), hidden_weight=0.5), Match()),
    "masked": ("bert", {}, Match(attention=((0, 1), (1, 2)), attention_weight=2.0, heads="mean"), Match()),
    "labels": ("bert", {"head": "sequence", "n_labels": 4}, Match(hidden=((0, 0),)), Match()),
    "labels of tokens": ("bert", {"head": "token", "n_labels": 4}, Match(), Match()),
    "encoder-decoder": ("t5", {}, Match(hidden=((2, 3),)), Match(hidden=((1, 1),), attention=((0, 2),), heads="mean")),
}


def pair(name):
    """(student, its weights, teacher, its weights)"""
    family, more, *_ = CASES[name]
    return *tiny(family, **SMALL, **more), *tiny(family, **more)


def batch_of(name, seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.array([7, 4, 0])[:, None]
    batch = {"tokens": rng.integers(3, V, (B, T)), "segment_ids": np.arange(T) < lengths}
    if name == "encoder-decoder":
        batch |= {"inputs": rng.integers(3, V, (B, S)), "input_segment_ids": np.arange(S) < [[5], [3], [5]]}
    head = CASES[name][1].get("head")
    batch["labels" if head else "targets"] = rng.integers(0, 4, (B, T)) if head else rng.integers(0, V, (B, T))
    batch = {k: v.astype(np.int32) for k, v in batch.items()}
    mask = rng.choice([0.5, 1, 1, 0], (B, T)) * batch["segment_ids"]
    if head == "sequence":
        batch["labels"], mask = batch["labels"][:, 0], np.array([1, 0.5, 0])
    return batch | {"loss_mask": mask.astype(np.float32)}


def log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - z.max(-1, keepdims=True) - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))


def said(model, params, batch):
    """Logits or scores in float64, and the whole output."""

    def run(params, batch):
        out = model.apply(params, batch, hidden_states=True, attentions=True)
        tokens = model.config.head in ("lm", "mlm")
        return model.logits(params, out.hidden) if tokens else model.classify(params, out, batch), out

    return jax.device_get(quick_jit(run)(params, batch))


def by_hand(name, batch, mine, theirs, maps, alpha, temperature):
    """{name: Σ} by loops over rows and positions."""
    _, _, match, encoder_match = CASES[name]
    (z, student), (t, teacher) = mine, theirs
    mask, targets = batch["loss_mask"], batch.get("targets", batch.get("labels"))
    out = dict.fromkeys(("cross_entropy", "divergence"), 0.0)
    for at in zip(*np.nonzero(mask), strict=True):
        p, q = (log_softmax(x[at] / temperature) for x in (t, z))
        out["cross_entropy"] -= mask[at] * log_softmax(z[at])[targets[at]]
        out["divergence"] += mask[at] * temperature**2 * (np.exp(p) * (p - q)).sum()
    total = alpha * out["cross_entropy"] + (1 - alpha) * out["divergence"]
    sides = (("", match), ("encoder_", encoder_match)) if "inputs" in batch else (("", match),)
    for prefix, side in sides:
        real = batch["input_segment_ids" if prefix else "segment_ids"] > 0
        share = mask.reshape(B, -1).sum(1)[:, None] * real / np.maximum(real.sum(1, keepdims=True), 1)
        share = mask if mask.ndim == 2 and not prefix else share
        states = [x.encoder_states if prefix else x.hidden_states for x in (student, teacher)]
        looks = [x.encoder_attentions if prefix else x.attentions for x in (student, teacher)]
        W = maps.get(f"{prefix}hidden", {}).get("kernel")
        for k, (i, j) in enumerate(side.hidden):
            for at in zip(*np.nonzero(share), strict=True):
                gap = np.asarray(states[0][i][at], np.float64) @ W[k] - states[1][j][at]
                term = share[at] * np.mean(gap**2) / len(side.hidden)
                out[f"{prefix}hidden"] = out.get(f"{prefix}hidden", 0.0) + term
        for i, j in side.attention:
            for b, q in zip(*np.nonzero(share), strict=True):
                own, his = (np.asarray(x[n][b, :, q], np.float64).mean(0) for x, n in zip(looks, (i, j), strict=True))
                seen = his > 0
                term = share[b, q] * (his[seen] * np.log(his[seen] / own[seen])).sum() / len(side.attention)
                out[f"{prefix}attention"] = out.get(f"{prefix}attention", 0.0) + term
        total += side.hidden_weight * out.get(f"{prefix}hidden", 0)
        total += side.attention_weight * out.get(f"{prefix}attention", 0)
    return total, out


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_a_loop_over_positions_and_the_teacher_stays(name):
    student, own, teacher, frozen = pair(name)
    match, encoder_match = CASES[name][2:]
    maps = jax.device_get(match_projections(jax.random.key(3), student, teacher, match, encoder_match))
    params, learns = beside_teacher(own, frozen, maps)
    loss_fn = distillation_loss(
        student, teacher, alpha=0.3, temperature=2.0, match=match, encoder_match=encoder_match, chunk=3
    )
    batch = batch_of(name)
    run = quick_jit(jax.value_and_grad(lambda p, b: loss_fn(p, b, None), has_aux=True))
    (loss, aux), grads = run(params, batch)
    wanted, terms = by_hand(name, batch, said(student, own, batch), said(teacher, frozen, batch), maps, 0.3, 2.0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    assert set(aux["metrics"]) == {*terms, "accuracy", "agreement"} and aux["weight"] == batch["loss_mask"].sum()
    for term, value in terms.items():
        np.testing.assert_allclose(aux["metrics"][term][0], value, rtol=1e-3, err_msg=term)
    moved = {part: any(np.asarray(g).any() for g in jax.tree.leaves(grad)) for part, grad in grads.items()}
    assert moved == {part: part != "teacher" for part in params} and set(learns) == set(params)
    answers = "labels" if "labels" in batch else "targets"
    junk = batch | {answers: np.where(batch["loss_mask"] > 0, batch[answers], -7)}
    # The last row is padding: what stands in it is nobody's business.
    junk["tokens"] = np.where(np.arange(B)[:, None] == B - 1, 5, batch["tokens"])
    chex.assert_trees_all_equal(run(params, junk), ((loss, aux), grads))


TEXTS = [np.random.default_rng(1).integers(3, V, n).astype(np.int32) for n in (5, 7, 2, 6, 4, 7, 3, 5)]
ROWS = PaddedRows([Example(ids, np.ones(len(ids), np.float32)) for ids in TEXTS], T)


def test_a_stored_teacher_is_the_teacher_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    student, own, teacher, frozen = pair("decoder")
    done, batches = [], []
    told, write = stored_teacher.Bar.update, stored_teacher._write

    def killed(bar, step, numbers):
        done.append(step)
        if len(done) == 2:
            raise KeyboardInterrupt
        told(bar, step, numbers)

    monkeypatch.setattr(stored_teacher.Bar, "update", killed)
    monkeypatch.setattr(stored_teacher, "_write", lambda *given: (batches.append(given[2]), write(*given)))
    with pytest.raises(KeyboardInterrupt):
        store_teacher(tmp_path, teacher, frozen, ROWS, k=V, batch_size=3, chunk=4)
    assert json.loads((tmp_path / "store.json").read_text())["done"] == 6
    store_teacher(tmp_path, teacher, frozen, ROWS, k=V, batch_size=3, chunk=4)
    assert [index.tolist() for index in batches] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert np.load(tmp_path / "indices.npy", mmap_mode="r").dtype == np.uint8
    rows = WithTeacher(ROWS, tmp_path, teacher=tree.fingerprint(frozen))
    batch = stack([rows.row(i, np.random.default_rng(0)) for i in (0, 4, 7)])
    options = {"alpha": 0.2, "temperature": 3.0, "beta": 0.5, "chunk": 4}
    stored, there = distillation_loss(student, **options), distillation_loss(student, teacher, **options)
    run = quick_jit(jax.grad(lambda p, f, b: stored({"student": p}, b, None), has_aux=True))
    whole = quick_jit(jax.grad(lambda p, f, b: there({"student": p, "teacher": f}, b, None), has_aux=True))
    # A token that the student writes itself teaches it nothing about labels.
    sampled = {"sampled": np.array([0, 1, 0])}
    found, wanted = run(own, None, batch | sampled), whole(own, frozen, batch | sampled)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-5)
    # Of some tokens, too, both agree with the rows that were never masked.
    nothing = {k: np.zeros_like(v) for k, v in batch.items()} | sampled
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(run(own, None, nothing)[0]))


def test_steps_are_the_same_in_micro_batches_and_on_a_mesh_and_adapters_learn():
    student, own, teacher, frozen = pair("decoder")
    match = Match(hidden=((2, 3),))
    adapted = weights.attach(own, {"method": "lora", "rank": 2}, jax.random.key(1))
    learns = weights.trainable(adapted, {"method": "lora", "rank": 2})
    maps = match_projections(jax.random.key(2), student, teacher, match)
    params, masks = beside_teacher(adapted, frozen, maps, learns=learns)
    loss_fn = distillation_loss(student, teacher, alpha=0.5, match=match, chunk=4)
    batch = stack([ROWS.row(i) for i in range(8)])
    after = {}
    for name, accumulate, mesh in (("one", 1, None), ("four", 4, None), ("eight devices", 1, {"data": 8})):
        mesh = None if mesh is None else meshes.make_mesh(mesh)
        optimizer = optim.make({"name": "sgd", "learning_rate": 0.1}, tree.split(params, masks)[0], steps=1)
        begun, rest = state.create(params, optimizer, rng=jax.random.key(0), trainable=masks, mesh=mesh)
        ended, metrics = make_step(loss_fn, optimizer, accumulate=accumulate, mesh=mesh)(begun, rest, batch)
        after[name] = jax.device_get((ended.params, metrics["loss"], metrics["divergence"]))
    for name in ("four", "eight devices"):
        chex.assert_trees_all_close(after[name], after["one"], rtol=1e-4, atol=1e-5)
    moved = tree.paths(after["one"][0])
    assert {path.split("/")[0] for path in moved} == {"student", "match"} and len(moved) == sum(jax.tree.leaves(masks))


class Letters:
    """One letter for each id."""

    vocab_size, bos_id, eos_id = V, 1, 2

    def decode(self, ids):
        return "".join(chr(60 + i) for i in ids)


def test_the_teacher_writes_what_it_finds_likeliest_and_the_student_what_it_is_asked():
    model, params = tiny("llama")
    writer = Writer(model, Letters(), 4, 5, (2,))
    prompts = [[1, 5, 9], [1, 4], [1, 8, 8, 3], [1, 17], [1, 30, 2]]
    written = {beams: teacher_writes(writer, params, prompts, beams=beams, batch_size=2) for beams in (0, 4)}
    score = quick_jit(lambda p, b: jax.nn.log_softmax(model.logits(p, model.apply(p, b).hidden)))
    sums = {}
    for beams, batch in written.items():
        logprobs = np.asarray(score(params, batch))
        on = batch["loss_mask"] > 0
        assert all(v.shape == (5, 8) for name, v in batch.items() if name != "places")
        chosen = np.take_along_axis(logprobs, batch["targets"][..., None], -1)[..., 0]
        sums[beams] = (chosen * on).sum(1) / on.sum(1)  # what beam search ranks by
        if not beams:
            assert (logprobs.argmax(-1) == batch["targets"])[on].all()
    assert (sums[4] >= sums[0] - 1e-4).all() and (sums[4] > sums[0] + 1e-3).any()
    data = lambda step: {"tokens": np.full((2, 3), step), "loss_mask": np.ones((2, 3), np.float32)}  # noqa: E731
    mixed = OnPolicy(writer, prompts, data, 0.5, 2, seed=3)
    found = [mixed.batch(params, step) for step in range(8)]
    own = [bool(batch["sampled"].all()) for batch in found]
    assert 0 < sum(own) < 8 and not any(
        batch["sampled"].any() for batch, mine in zip(found, own, strict=True) if not mine
    )
    at = own.index(True)
    chex.assert_trees_all_equal(mixed.batch(params, at), found[at])
    other = jax.tree.map(lambda w: -w, params)
    assert (mixed.batch(other, at)["tokens"] != found[at]["tokens"]).any()
    apart = own.index(False)
    np.testing.assert_array_equal(mixed.batch(other, apart)["tokens"], np.full((2, 3), apart))
