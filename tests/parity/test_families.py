"""Every family and head against transformers: logits, the loss and all gradients; padded, single, tied, untied."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from research.core import tree
from research.interop import load_pretrained
from research.models import build
from tests.parity.zoo import (
    BY_NAME,
    PAD,
    both,
    make_batch,
    quick_jit,
    run_ours,
    run_torch,
    torch_gradients,
    torch_model,
)

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


def test_a_scalar_head_is_their_sequence_head_with_one_label(tmp_path: Path) -> None:
    case = BY_NAME["qwen3-sequence"]
    case = replace(case, name="qwen3-scalar", values=case.values | {"num_labels": 1})
    theirs = torch_model(case)
    theirs.save_pretrained(tmp_path)
    config, params, _ = load_pretrained(tmp_path, head="scalar")
    model, pair = build(config), make_batch(case)
    batch = {name: value for name, value in pair.ours.items() if name != "labels"}
    scores = quick_jit(lambda p, b: model.classify(p, model.apply(p, b), b))(params, batch)
    wanted = theirs(**{n: torch.tensor(v).long() for n, v in pair.theirs.items() if n != "labels"}).logits
    assert scores.shape == (case.batch,)
    np.testing.assert_allclose(scores, wanted[:, 0].detach().numpy(), atol=1e-4)
