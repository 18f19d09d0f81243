"""Every family and head against transformers: logits, the loss and all gradients; padded, single, tied, untied."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from research.core import tree
from tests.parity.zoo import BY_NAME, PAD, both, make_batch, run_ours, run_torch, torch_gradients

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", BY_NAME)
def test_logits_loss_and_gradients_equal_transformers(name: str) -> None:
    case = BY_NAME[name]
    theirs, ours, params = both(name)
    pair = make_batch(case)
    expected = run_torch(theirs, pair.theirs)
    loss, logits, grads = run_ours(ours, params, pair.ours)

    wanted = expected.logits.detach().numpy()
    real = pair.real if logits.ndim == 3 else np.ones(len(logits), bool)
    assert np.std(wanted[real]) > 0.05, "the logits must differ for the comparison to mean something"
    np.testing.assert_allclose(np.asarray(logits)[real], wanted[real], atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, expected.loss.item(), rtol=1e-5)

    got = {path: np.array(grad) for path, grad in tree.paths(grads).items()}
    if case.name == "bart-sequence":
        # Padding is visible in the shifted inputs, and torch's padding_idx drops its row's gradient; ours is true.
        got["embed/tokens/embedding"][PAD] = 0
    for path, want in torch_gradients(theirs, ours).items():
        scale = np.max(np.abs(want))
        # Relative to the tensor's largest entry: single entries may cancel to rounding noise (a key's bias has
        # no gradient at all but for rounding, as softmax ignores a constant).
        np.testing.assert_allclose(got[path], want, atol=max(1e-3 * scale, 1e-6), rtol=0, err_msg=path)
