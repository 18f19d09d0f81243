"""A model small enough to check by hand: an embedding, two stacked layers with a residual, a squared loss."""

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree

VOCAB, WIDTH, INNER, LAYERS = 16, 4, 6, 2


def params(seed=0):
    """Fresh weights, with the paths of a real model."""
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    mlp = {
        "up": {"kernel": 0.5 * jax.random.normal(a, (LAYERS, WIDTH, INNER)), "bias": jnp.full((LAYERS, INNER), 0.1)},
        "down": {"kernel": 0.5 * jax.random.normal(b, (LAYERS, INNER, WIDTH))},
    }
    embedding = jax.random.normal(c, (VOCAB, WIDTH))
    return {"embed": {"tokens": {"embedding": embedding}}, "decoder": {"layers": {"00": {"mlp": mlp}}}}


def forward(weights, tokens):
    """[B, T] -> [B, T, WIDTH]; takes stacked layers and `tree.unstack`ed ones."""
    x = weights["embed"]["tokens"]["embedding"][tokens]
    layers = weights["decoder"]["layers"]
    for layer in layers if isinstance(layers, tuple) else tree.unstack({"layers": layers})["layers"]:
        mlp = layer["mlp"]
        x = x + jnp.tanh(x @ mlp["up"]["kernel"] + mlp["up"]["bias"]) @ mlp["down"]["kernel"]
    return x


def loss(weights, batch, rng):
    """Σ mask · mean((forward - 1)²), with a little noise when there is a key."""
    x = forward(weights, batch["tokens"])
    if rng is not None:
        x = x + 0.01 * jax.random.normal(rng, x.shape)
    per_token = jnp.mean((x - 1.0) ** 2, axis=-1) * batch["loss_mask"]
    total, weight = per_token.sum(), batch["loss_mask"].sum()
    return total, {"weight": weight, "metrics": {"squared": (total, weight)}}


def quiet_loss(weights, batch, rng):
    """`loss` without noise: for comparisons across batch layouts."""
    del rng
    return loss(weights, batch, None)


def batch(step=0, rows=4, length=5):
    """A batch that depends on the step alone; some positions are masked."""
    rng = np.random.default_rng((7, step))
    mask = (rng.random((rows, length)) < 0.7).astype(np.float32)
    mask[0, 0] = 1.0
    return {"tokens": rng.integers(0, VOCAB, (rows, length)).astype(np.int32), "loss_mask": mask}


class Source:
    """`batch` as a data source."""

    def batch(self, step):
        return batch(step)
