"""The loss on pairs of texts: each text scored alone, and padding counts for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.packing import pad_batch
from research.models import build
from research.recipes.reward import pairwise_loss
from tests.models.conftest import tiny_config


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_loss_is_that_of_texts_scored_one_by_one(family):
    model = build(tiny_config(family, head="scalar"))
    params = jax.jit(model.init)(jax.random.key(0))
    generator = np.random.default_rng(0)
    texts = [generator.integers(3, 61, n).tolist() for n in (5, 3, 1, 7, 4, 4, 2, 2)]
    preferred, mask = np.array([1, 0, 0.5, 1], np.float32), np.array([1, 1, 1, 0], np.float32)

    def loss(length):
        batch = {k: jnp.asarray(v.reshape(4, 2, -1)) for k, v in pad_batch(texts, length).items()}
        total, aux = pairwise_loss(model)(params, batch | {"preferred": preferred, "loss_mask": mask}, None)
        return float(total), aux

    one = jax.jit(lambda b: model.classify(params, model.apply(params, b), b)[0])
    scores = [float(one({k: jnp.asarray(v) for k, v in pad_batch([text], 8).items()})) for text in texts]
    pairs = list(zip(scores[::2], scores[1::2], preferred, strict=True))[:3]
    wanted = sum(p * np.log1p(np.exp(b - a)) + (1 - p) * np.log1p(np.exp(a - b)) for a, b, p in pairs)
    (short, aux), (long, _) = loss(7), loss(9)
    np.testing.assert_allclose([short, long], wanted, rtol=1e-4)
    assert float(aux["weight"]) == 3 and float(aux["metrics"]["accuracy"][1]) == 2  # a tie has no right answer
    right = [(a > b) == (p > 0.5) for a, b, p in pairs if p != 0.5]
    assert float(aux["metrics"]["accuracy"][0]) == sum(right)


def test_another_head_is_refused():
    with pytest.raises(ValueError, match="ranking needs a head 'scalar'; the model has 'lm'"):
        pairwise_loss(build(tiny_config("llama")))
