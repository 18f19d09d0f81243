import numpy as np
import pytest

from research.core import tree
from research.training.evaluate import make_evaluate
from tests.training import toy


def test_every_target_counts_once():
    batches = [toy.batch(0), toy.batch(1)]
    batches[1]["loss_mask"][1:] = 0.0
    sums = [toy.quiet_loss(toy.params(), b, None) for b in batches]
    want = sum(float(s) for s, _ in sums) / sum(float(aux["weight"]) for _, aux in sums)
    params = toy.params()
    chosen, frozen = tree.split(params, tree.select(params, "decoder/.*"))
    for values in (make_evaluate(toy.loss, batches)(params), make_evaluate(toy.loss, batches)(chosen, frozen)):
        assert values["loss"] == pytest.approx(want, rel=1e-6)
        assert values["squared"] == pytest.approx(want, rel=1e-6)
        assert values["weight"] == sum(b["loss_mask"].sum() for b in batches)


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="held-out set is empty"):
        make_evaluate(toy.loss, [])
    with pytest.raises(ValueError, match="every position of the 1 batches of the held-out set is masked"):
        make_evaluate(toy.loss, [toy.batch() | {"loss_mask": np.zeros((4, 5), np.float32)}])


def test_parts_by_name_add_up_and_are_told_apart():
    params, batches = toy.params(), [toy.batch(rows=2), toy.batch(rows=4)]
    whole = make_evaluate(toy.loss, batches)(params)
    named = make_evaluate(toy.loss, {"a": batches[:1], "b": batches[1:]})(params)
    assert {name: named[name] for name in whole} == whole
    for name, batch in zip("ab", batches, strict=True):
        np.testing.assert_allclose(named[f"loss/{name}"], make_evaluate(toy.loss, [batch])(params)["loss"], rtol=1e-6)
    with pytest.raises(ValueError, match="the held-out set of 'b' is empty"):
        make_evaluate(toy.loss, {"a": batches, "b": []})
