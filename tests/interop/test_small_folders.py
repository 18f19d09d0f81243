"""Pruned models, folded, and cut ones are folders that transformers loads, and it computes the same from them."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import jax
import torch
import transformers

from research import weights
from research.core import tree
from research.interop import save_pretrained
from research.models import build
from research.weights.slim import slim
from tests.interop.conftest import small
from tests.parity.zoo import quick_jit

pytestmark = pytest.mark.oracle
CLASSES = {"llama": transformers.AutoModelForCausalLM, "bert": transformers.AutoModelForMaskedLM}
# BERT's format takes the size of a head from their number: heads stay.
CUTS = {"llama": {"heads": 2, "columns": 12, "layers": (1,)}, "bert": {"columns": 12, "layers": (1,)}}


@pytest.mark.parametrize("how", ["masked", "cut"])
@pytest.mark.parametrize("family", CLASSES)
def test_transformers_computes_the_same_from_what_is_left(tmp_path, family, how):
    config, params = small(family)
    if how == "masked":
        params = weights.merge(weights.attach(params, {"method": "magnitude", "pattern": "2:4"}, jax.random.key(0)))
    else:
        config, params = slim(config, tree.stack(params), **CUTS[family])
    save_pretrained(tmp_path, config, params)
    theirs, report = CLASSES[family].from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert theirs.config.intermediate_size == config.d_ff == (24 if how == "masked" else 12)
    assert theirs.config.num_hidden_layers == (3 if how == "masked" else 2)
    if how == "masked":
        kernels = [w for name, w in theirs.named_parameters() if "layer" in name and w.ndim == 2]
        assert len(kernels) > 12 and all((w.detach().numpy() == 0).mean() == 0.5 for w in kernels)
    tokens = np.random.default_rng(0).integers(3, 41, (2, 7)).astype(np.int32)
    model = build(config)
    ours = quick_jit(lambda p, b: model.logits(p, model.apply(p, b).hidden))(params, {"tokens": tokens})
    with torch.no_grad():
        wanted = theirs.eval()(input_ids=torch.tensor(tokens).long()).logits.numpy()
    np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())
