"""InfoNCE against a loop over pairs in float64, and against sentence-transformers with its gradients."""

import jax
import numpy as np
import pytest

from research.objectives import info_nce

CASES = [
    {"P": 6, "D": 5},
    {"P": 7, "D": 3, "symmetric": True, "temperature": 0.3},
    {"P": 5, "D": 4, "H": 2, "temperature": 1.0},
    {"P": 9, "D": 4, "H": 3, "symmetric": True, "masked": True, "alike": True, "temperature": 0.2},
    {"P": 1, "D": 2, "symmetric": True},
]


def case(seed, P, D, H=0, masked=False, alike=False, **options):
    rng = np.random.default_rng(seed)
    arrays = {"queries": rng.normal(size=(P, D)), "passages": rng.normal(size=(P, D))}
    given = dict(options)
    if masked:
        given["mask"] = (rng.random(P) < 0.7).astype(np.float32)
    if alike:
        given["groups"] = rng.integers(0, P // 2, P)
    if H:
        arrays["negatives"] = rng.normal(size=(P, H, D))
        if masked:
            given["negative_mask"] = (rng.random((P, H)) < 0.6).astype(np.float32)
    return {k: v.astype(np.float32) for k, v in arrays.items()}, given


def by_loop(queries, passages, *, temperature=0.05, symmetric=False, mask=None, groups=None, negatives=None, **more):
    """One pair after another, one candidate after another."""
    P = len(queries)
    mask = np.ones(P) if mask is None else mask
    groups = np.arange(P) if groups is None else groups
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature  # noqa: E731
    total, right = 0.0, 0
    for i in np.flatnonzero(mask):
        others = [j for j in np.flatnonzero(mask) if groups[j] != groups[i]]
        own = cosine(queries[i], passages[i])
        found = [own] + [cosine(queries[i], passages[j]) for j in others]
        if negatives is not None:
            there = more.get("negative_mask", np.ones(negatives.shape[:2]))
            hard = [negatives[j, h] for j in np.flatnonzero(mask) for h in np.flatnonzero(there[j])]
            found += [cosine(queries[i], passage) for passage in hard]
        loss = np.log(np.exp(found).sum()) - own
        if symmetric:
            back = [own] + [cosine(queries[j], passages[i]) for j in others]
            loss = (loss + np.log(np.exp(back).sum()) - own) / 2
        total, right = total + loss, right + (own == max(found))
    return total, right, mask.sum()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", CASES)
def test_loss_and_accuracy_are_those_of_a_loop(shape, seed):
    arrays, given = case(seed, **shape)
    loss, aux = info_nce(**arrays, **given)
    wanted, right, count = by_loop(**{k: v.astype(np.float64) for k, v in arrays.items()}, **given)
    np.testing.assert_allclose(loss, wanted, rtol=2e-6, atol=1e-6)
    assert aux["weight"] == count
    assert [float(x) for x in aux["metrics"]["accuracy"]] == [right, count]


def test_a_row_of_zeros_has_a_gradient():
    arrays, _ = case(0, 4, 3)
    arrays["queries"][1] = 0
    grads = jax.grad(lambda a: info_nce(**a)[0])(arrays)
    assert all(np.isfinite(g).all() for g in grads.values()) and np.abs(grads["passages"]).max() > 0


@pytest.mark.oracle
@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equals_sentence_transformers(hard, symmetric):
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    arrays, _ = case(3, 8, 6, H=hard)
    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    theirs = losses.MultipleNegativesRankingLoss(
        None, scale=12.5, directions=directions, partition_mode="per_direction"
    )
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in arrays.items()}
    columns = [tensors["queries"], tensors["passages"]]
    columns += [tensors["negatives"][:, h] for h in range(hard)]
    wanted = theirs.compute_loss_from_embeddings(columns, None)
    wanted.backward()
    mean = lambda a: info_nce(**a, temperature=0.08, symmetric=symmetric)[0] / 8  # noqa: E731
    loss, grads = jax.value_and_grad(mean)(arrays)
    np.testing.assert_allclose(loss, wanted.item(), rtol=1e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, tensors[name].grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
