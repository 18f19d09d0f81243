"""Hidden states and attention maps of one model of each kind, from the scanned, unrolled and unstacked programs."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from research.core import tree
from research.models import build
from tests.parity.zoo import BY_NAME, both, make_batch, quick_jit, run_torch

pytestmark = pytest.mark.oracle


@partial(quick_jit, static_argnums=0)
def _inside(model: Any, params: Any, batch: dict[str, jax.Array]) -> Any:
    return model.apply(params, batch, hidden_states=True, attentions=True)


def _close(ours: Any, theirs: Any, *real: np.ndarray) -> None:
    """Equal where queries (and keys) are real tokens; states are [L + 1, B, T, D], maps [L, B, N, T, S]."""
    got, want = np.asarray(ours), np.stack([layer.detach().numpy() for layer in theirs])
    assert got.shape == want.shape
    if got.ndim == 5:
        got, want = np.moveaxis(got, 2, -1), np.moveaxis(want, 2, -1)  # [L, B, T, S, N]
        on = np.broadcast_to(real[0][None, :, :, None], got.shape[:4])
        np.testing.assert_allclose(got[on], want[on], atol=1e-5)
        # What padding would get must be nothing at all.
        assert not np.any(got[on & ~np.broadcast_to(real[1][None, :, None, :], got.shape[:4])])
    else:
        on = np.broadcast_to(real[0][None], got.shape[:3])
        np.testing.assert_allclose(got[on], want[on], atol=1e-4)


@pytest.mark.parametrize("program", ["scanned", "unrolled", "unstacked"])
@pytest.mark.parametrize("name", ["bert-padded", "gemma2-padded", "bart-padded"])
def test_hidden_states_and_attention_maps(name: str, program: str) -> None:
    theirs, model, params = both(name)
    pair = make_batch(BY_NAME[name])
    expected = run_torch(theirs, pair.theirs, output_hidden_states=True, output_attentions=True)
    model = build(model.config, unroll=program == "unrolled")
    params = tree.unstack(params) if program == "unstacked" else params
    out = _inside(model, params, {key: value for key, value in pair.ours.items() if key != "labels"})

    if model.config.kind != "encoder_decoder":
        _close(out.hidden_states, expected.hidden_states, pair.real)
        _close(out.attentions, expected.attentions, pair.real, pair.real)
        return
    source = pair.ours["input_segment_ids"] > 0
    _close(out.hidden_states, expected.decoder_hidden_states, pair.real)
    _close(out.attentions, expected.decoder_attentions, pair.real, pair.real)
    _close(out.cross_attentions, expected.cross_attentions, pair.real, source)
    _close(out.encoder_hidden[None], [expected.encoder_last_hidden_state], source)
    _close(out.encoder_states, expected.encoder_hidden_states, source)
    _close(out.encoder_attentions, expected.encoder_attentions, source, source)
