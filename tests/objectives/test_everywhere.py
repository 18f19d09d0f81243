"""What holds for every objective: the same under jit, shard_map and pmap with unequal counts on the devices, nothing
from what is masked, nothing from padding, gradients that are those of finite differences, sums in float32.

All objectives are one program, so each of these compiles once.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from research import objectives as o
from research.core.mesh import make_mesh

B, T, R, V, N = 16, 5, 3, 4, 8
AXIS = "data"


def total(pair, axis):
    """A mean over all devices from a (sum, weight)."""
    summed = pair if axis is None else jax.lax.psum(pair, axis)
    return summed[0] / jnp.maximum(summed[1], 1)


def answers(t, d):
    """log π, log π_ref and lengths of whole answers [B, 2], and which pairs have both."""
    policy, lengths = o.sequence_logprobs(t["logprobs"], d["masks"])
    reference, _ = o.sequence_logprobs(d["reference"], d["masks"])
    return policy, reference, lengths, (lengths > 0).all(-1)


def paired(loss, *, lengths=False, **options):
    def run(t, d, axis):
        policy, reference, n, both = answers(t, d)
        more = {"lengths": n} if lengths else {}
        return loss(policy, reference, preferred=d["preferred"], mask=both, **more, **options)

    return run


def reference_free(loss):
    def run(t, d, axis):
        policy, _, lengths, both = answers(t, d)
        return loss(policy, lengths, preferred=d["preferred"], mask=both)

    return run


def kto(t, d, axis):
    policy, reference, lengths, _ = answers(t, d)
    on, good = lengths[:, 0] > 0, d["preferred"] > 0.5
    other, _ = o.sequence_logprobs(d["old"], d["masks"][:, 0])
    baseline = total(o.kto_baseline(other, reference[:, 0], mask=on), axis)
    return o.kto(policy[:, 0], reference[:, 0], good, baseline, undesirable_weight=1.5, mask=on)


def clipped_policy(t, d, axis):
    rewards = o.token_rewards(d["scores"], d["old"], d["reference"][:, 0], d["masks"][:, 0], kl_coefficient=0.3)
    advantages = o.gae(rewards, d["values"], d["masks"][:, 0], discount=0.9, trace=0.8)
    advantages = o.whiten(advantages, d["masks"][:, 0], axis_name=axis)
    return o.clipped_policy(t["logprobs"][:, 0], d["old"], advantages, d["masks"][:, 0], clip_high=0.3)


def grpo(t, d, axis):
    advantages = o.group_advantages(d["groups"], mask=d["ranked"])[:, 0]
    reference = d["reference"][:, 0]
    return o.grpo(t["logprobs"][:, 0], d["old"], advantages, d["masks"][:, 0], reference=reference, kl_coefficient=0.2)


def reinforce(t, d, axis):
    advantages = o.leave_one_out(d["groups"], mask=d["ranked"])[:, 0]
    return o.reinforce(t["logprobs"][:, 0], advantages, d["masks"][:, 0])


def value(t, d, axis):
    returns = o.discounted_returns(d["values"], d["masks"][:, 0], discount=0.7)
    return o.clipped_value(t["values"], d["values"], returns, d["masks"][:, 0])


def attention(t, d, axis):
    return o.attention_matching(t["maps"][:, None], d["maps"][:, None], d["masks"][:, 0])


def info_nce(t, d, axis):
    options = {"temperature": 0.4, "symmetric": True, "mask": d["rows"], "groups": d["alike"], "axis_name": axis}
    hard = {"negatives": d["hard"], "negative_mask": d["ranked"]}
    return o.info_nce(t["pairs"][:, 0], t["pairs"][:, 1], **options, **hard)


OBJECTIVES = {
    "bradley_terry": lambda t, d, axis: o.bradley_terry(
        t["ranking"][:, 0], t["ranking"][:, 1], preferred=d["preferred"], margin=0.3, center=0.1, mask=d["rows"]
    ),
    "plackett_luce": lambda t, d, axis: o.plackett_luce(t["ranking"], mask=d["ranked"]),
    "dpo": paired(o.dpo, beta=0.3, label_smoothing=0.1),
    "robust_dpo": paired(o.robust_dpo, beta=0.3, label_smoothing=0.2),
    "ipo": paired(o.ipo, lengths=True, tau=0.4),
    "ipo of sums": paired(o.ipo, tau=0.4),
    "hinge": paired(o.hinge, beta=0.2),
    "kto": kto,
    "simpo": reference_free(o.simpo),
    "orpo": reference_free(o.orpo),
    "clipped_policy": clipped_policy,
    "clipped_value": value,
    "entropy_bonus": lambda t, d, axis: o.entropy_bonus(t["logits"], d["masks"][:, 0]),
    "reinforce": reinforce,
    "grpo": grpo,
    "distillation": lambda t, d, axis: o.distillation(
        t["logits"], d["teacher"], d["masks"][:, 0], temperature=2.0, beta=0.3
    ),
    "topk_distillation": lambda t, d, axis: o.topk_distillation(
        t["logits"], d["indices"], d["stored"], d["masks"][:, 0], temperature=2.0
    ),
    "hidden_matching": lambda t, d, axis: o.hidden_matching(t["logits"], d["teacher"], d["masks"][:, 0]),
    "attention_matching": attention,
    "info_nce": info_nce,
}


def run(t, d, axis=None):
    """{name: (sum, aux, gradients)} of every objective."""
    out = {}
    for name, objective in OBJECTIVES.items():
        (loss, aux), grads = jax.value_and_grad(partial(objective, d=d, axis=axis), has_aux=True)(t)
        out[name] = ((loss, aux), grads)
    return out


def added(t, d):
    """`run` on the rows of one device, with the sums of all of them."""
    return {name: (jax.lax.psum(sums, AXIS), grads) for name, (sums, grads) in run(t, d, AXIS).items()}


RUN = jax.jit(run)


def case(seed, rows=B):
    """What learns and what is given, with unequal numbers of tokens, pairs and ranked answers in a row."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    logprobs = -np.abs(normal(rows, 2, T)) - 0.05
    learned = {"logprobs": logprobs, "values": normal(rows, T), "ranking": normal(rows, R)}
    learned["logits"] = normal(rows, T, V)
    own = np.random.default_rng(50 + seed)
    learned["pairs"] = own.normal(size=(rows, 2, V)).astype(np.float32)
    learned["maps"], maps = own.dirichlet(np.full(V, 10), (2, rows, T)).astype(np.float32)
    lengths = rng.integers(0, T + 1, (rows, 2, 1))
    lengths[::3] = np.maximum(lengths[::3], 1)
    given = {
        "reference": logprobs + 0.5 * normal(rows, 2, T),
        "old": logprobs[:, 0] + 0.3 * normal(rows, T),
        "masks": (np.arange(T) < lengths).astype(np.float32),
        "values": normal(rows, T),
        "scores": normal(rows),
        "groups": normal(rows, R),
        "preferred": rng.choice([0, 0.5, 0.8, 1], rows).astype(np.float32),
        "rows": rng.integers(0, 2, rows).astype(np.float32),
        "ranked": (rng.random((rows, R)) < 0.8).astype(np.float32),
        "teacher": own.normal(size=(rows, T, V)).astype(np.float32),
        "maps": maps,
        "alike": own.integers(0, rows // 2, rows).astype(np.int32),
        "hard": own.normal(size=(rows, R, V)).astype(np.float32),
        "indices": np.argsort(own.random((rows, T, V)), axis=-1)[..., :2].astype(np.int32),
        "stored": np.log(own.dirichlet(np.ones(3), (rows, T))[..., :2]).astype(np.float32),
    }
    given["masks"][:, :, 1] *= rng.random((rows, 2)) < 0.7  # a hole, as where a tool speaks
    for name in ("masks", "rows", "ranked"):
        given[name][4:6] = 0  # all that the third of eight devices has
    return learned, given


MASKS = {"masks", "rows", "ranked"}


def hidden(learned, given):
    """Which entries of each array no objective may look at."""
    tokens = given["masks"] == 0
    first = tokens[:, 0]
    empty, no_pair = tokens.all(-1), given["rows"] == 0
    # Rankings are pairs of scores too: an entry is hidden where both uses leave it out.
    ranking = (given["ranked"] == 0) & np.stack([no_pair, no_pair, np.ones_like(no_pair)], axis=1)
    nowhere = empty.any(-1) & no_pair & empty[:, 0]
    return {
        "logprobs": tokens,
        "reference": tokens,
        "values": first,
        "old": first,
        **dict.fromkeys(("logits", "teacher", "maps"), np.broadcast_to(first[..., None], (*first.shape, V))),
        "stored": np.broadcast_to(first[..., None], (*first.shape, 2)),
        "ranking": ranking,
        "pairs": np.broadcast_to(no_pair[:, None, None], (*no_pair.shape, 2, V)),
        "hard": np.broadcast_to((no_pair[:, None] | (given["ranked"] == 0))[..., None], given["hard"].shape),
        "groups": given["ranked"] == 0,
        "scores": empty[:, 0],
        "preferred": nowhere,
    }


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_sums_and_gradients_are_those_of_one_device(how):
    learned, given = case(0)
    wanted = RUN(learned, given)
    if how == "shard_map":
        rows, mesh = PartitionSpec(AXIS), make_mesh({AXIS: N})
        out = {name: (PartitionSpec(), rows) for name in OBJECTIVES}
        mapped = jax.shard_map(added, mesh=mesh, in_specs=rows, out_specs=out)
        found = jax.jit(mapped)(learned, given)
    else:
        apart = lambda x: x.reshape(N, -1, *x.shape[1:])  # noqa: E731
        together = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])  # noqa: E731
        found = jax.pmap(added, AXIS)(*jax.tree.map(apart, (learned, given)))
        found = {k: (jax.tree.map(lambda x: x[0], s), jax.tree.map(together, g)) for k, (s, g) in found.items()}
    counts = given["masks"][:, 0].reshape(N, -1).sum(1)
    assert counts[2] == 0 and len(set(counts)) > 3
    chex.assert_trees_all_close(found, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_masked_adds_exactly_nothing(seed, junk):
    learned, given = case(seed)
    off = hidden(learned, given)
    spoil = lambda tree: {k: np.where(off[k], junk, v) if k in off else v for k, v in tree.items()}  # noqa: E731
    wanted, found = RUN(learned, given), RUN(spoil(learned), spoil(given))
    chex.assert_trees_all_equal(found, wanted)
    for name, (_, grads) in found.items():
        for what, grad in grads.items():
            assert not np.asarray(grad)[off[what]].any(), (name, what)
        assert any(np.asarray(grad).any() for grad in grads.values()), name


def test_nothing_at_all_is_exactly_zero():
    learned, given = case(0)
    found = RUN(learned, given | {name: np.zeros_like(given[name]) for name in MASKS})
    for (loss, aux), grads in found.values():
        assert loss == 0 and aux["weight"] == 0
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(grads))
        assert all(np.isfinite(x) for x in jax.tree.leaves(aux))


@pytest.mark.parametrize(("before", "behind"), [(2, 0), (1, 1)])
def test_padding_changes_nothing(before, behind):
    learned, given = case(3)

    def padded(tree, filler):
        axes = {"logprobs": 2, "reference": 2, "masks": 2}
        axes |= dict.fromkeys(("old", "values", "logits", "maps", "teacher", "indices", "stored"), 1)
        width = lambda k, v: [(before, behind) if i == axes.get(k) else (0, 0) for i in range(v.ndim)]  # noqa: E731
        return {k: np.pad(v, width(k, v), constant_values=0 if k in MASKS else filler) for k, v in tree.items()}

    plain = {name: (sums, padded(grads, 0)) for name, (sums, grads) in RUN(learned, given).items()}
    chex.assert_trees_all_close(RUN(padded(learned, -7), padded(given, -7)), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_are_differences_of_values(seed):
    learned, given = case(seed)
    rng = np.random.default_rng(100 + seed)
    step = 3e-3
    way = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in learned.items()}
    moved = lambda s: RUN({k: learned[k] + s * way[k] for k in learned}, given)  # noqa: E731
    here, up, down = RUN(learned, given), moved(step), moved(-step)
    for name, (_, grads) in here.items():
        along = sum(float(np.sum(np.asarray(grads[k], np.float64) * way[k])) for k in way)
        slope = (float(up[name][0][0]) - float(down[name][0][0])) / (2 * step)
        np.testing.assert_allclose(slope, along, rtol=5e-3, atol=5e-3, err_msg=name)


def test_half_precision_goes_in_and_float32_sums_come_out():
    learned, given = case(0)
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), learned)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    found, wanted = RUN(half, given), RUN(rounded, given)
    for name, (sums, grads) in found.items():
        chex.assert_trees_all_close(sums, wanted[name][0], rtol=1e-6)
        assert {x.dtype for x in jax.tree.leaves(sums)} == {np.dtype(np.float32)}
        assert {x.dtype for x in jax.tree.leaves(grads)} == {np.dtype(jnp.bfloat16)}
