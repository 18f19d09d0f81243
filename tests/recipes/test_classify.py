"""The losses on labels against a numpy loop; what changes nothing is in `test_invariance.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import build
from research.recipes.classify import accuracy, classification_loss, labelled_batch
from tests.models.conftest import tiny_config
from tests.parity.zoo import quick_jit

C = 3
HEADS = ("sequence", "token", "scalar")


def setup(family, head, seed=0):
    model = build(tiny_config(family, head=head, n_labels=C))
    params = jax.jit(model.init)(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    texts = [rng.integers(3, 61, n).tolist() for n in (5, 1, 8, 6)]
    labels = [rng.integers(0, C, len(t) if head == "token" else ()).tolist() for t in texts]
    return model, params, texts, labels


def graded(model):
    loss_fn = classification_loss(model)

    def value(params, batch):
        total, aux = loss_fn(params, batch, None)
        return total / aux["weight"], aux["metrics"]

    return quick_jit(jax.value_and_grad(value, has_aux=True))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_loss_is_that_of_a_loop(family, head):
    model, params, texts, labels = setup(family, head)
    batch = {k: jnp.asarray(v) for k, v in labelled_batch(texts, labels, 9, n_labels=C).items()}
    (loss, metrics), _ = graded(model)(params, batch)
    scores = np.asarray(model.classify(params, model.apply(params, batch), batch), np.float64)
    losses, right = [], []
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        for at, y in enumerate(label if head == "token" else [label]):
            z = scores[row, at] if head == "token" else scores[row]
            if head == "scalar":
                losses.append((z - y) ** 2)
            else:
                losses.append(np.log(np.exp(z).sum()) - z[y])
                right.append(z.argmax() == y)
        assert len(text) > 0
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
    if right:
        hits, weight = metrics["accuracy"]
        np.testing.assert_allclose(hits / weight, np.mean(right), rtol=1e-6)
        share, predicted = accuracy(model, params, [batch])
        np.testing.assert_allclose(share, np.mean(right), rtol=1e-6)
        assert predicted[0].shape == batch["labels"].shape


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ValueError, match="labels need a head 'sequence', 'token' or 'scalar'; the model has 'lm'"):
        classification_loss(build(tiny_config("llama")))
    with pytest.raises(ValueError, match="text 1 has label 3; the model knows 0 to 2"):
        labelled_batch([[5], [6]], [0, 3], 4, n_labels=C)
    with pytest.raises(ValueError, match="text 0 has 5 tokens; expected 1 to 4"):
        labelled_batch([[5] * 5], [0], 4, n_labels=C)
    with pytest.raises(ValueError, match="text 0 has 0 tokens; expected 1 to 4"):
        labelled_batch([[]], [0], 4, n_labels=C)
    with pytest.raises(ValueError, match="text 0 has 2 tokens but 1 labels"):
        labelled_batch([[5, 6]], [[0]], 4, n_labels=C)
