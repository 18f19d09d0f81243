"""One small training in float16, on a loss whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.trial import train
from research.core.dtypes import Policy

RULE = {"name": "sgd", "schedule": "constant", "clip": None}
X = np.arange(1, 9, dtype=np.float32).reshape(4, 2)


def loss_of(size):
    """Σ over rows of size · x · w with a product in float16, through which the gradient `size` passes."""

    def loss_fn(params, batch, rng):
        products = batch["x"].astype(jnp.float16) @ params["w"].astype(jnp.float16)
        return jnp.sum(products.astype(jnp.float32) * size), {"weight": jnp.float32(len(X))}

    return loss_fn


@pytest.mark.parametrize(("size", "skipped"), [(1e-8, 0), (8.0, 6)])
def test_gradients_in_float16_neither_vanish_nor_overflow(size, skipped):
    """1e-8 is no number in float16. Of 8.0 the gradient is 40, and 65536 times that is one after six halvings."""
    rule = RULE | {"learning_rate": 1e-2 / size}
    start, batches = {"w": np.zeros(2, np.float32)}, [{"x": X}] * (skipped + 1)
    trained, costs = train(loss_of(size), start, rule, batches, jax.random.key(0), policy=Policy.parse("f16"))
    np.testing.assert_allclose(trained["w"], -1e-2 * X.mean(0), rtol=1e-3)
    assert costs["steps"] == skipped + 1
    if not skipped:
        unscaled, _ = train(loss_of(size), start, rule, batches, jax.random.key(0))
        assert not unscaled["w"].any()
