"""What we save, transformers loads: no key missing or left over, and the same logits."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from research.interop import load_pretrained, save_pretrained
from research.interop.hf_config import config_to_hf
from tests.interop.conftest import small
from tests.parity.zoo import BY_NAME, both, make_batch, torch_model

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", BY_NAME)
def test_transformers_loads_what_we_save_and_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    theirs, ours, params = both(name)
    save_pretrained(tmp_path, ours.config, params, max_shard_bytes=20_000)
    loaded, report = getattr(transformers, case.model).from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    # The output bias that an untied BERT or RoBERTa never reads has no counterpart here.
    assert set(report["missing_keys"]) <= {"cls.predictions.bias", "lm_head.bias"}
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    batch = {k: torch.tensor(v).long() for k, v in make_batch(case, seed=1).theirs.items() if k != "labels"}
    with torch.no_grad():
        want, got = theirs(**batch).logits, loaded.eval()(**batch).logits
    np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_folders_are_read_bit_by_bit(name: str, tmp_path: Path) -> None:
    theirs = torch_model(BY_NAME["llama-padded"]).to(getattr(torch, name))
    theirs.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    up = loaded.params["decoder"]["layers"]["00"]["mlp"]["up"]["kernel"]
    assert str(up.dtype) == name
    want = torch.stack([layer.mlp.up_proj.weight for layer in theirs.model.layers]).detach().float().numpy()
    np.testing.assert_array_equal(np.asarray(up, np.float32), want.swapaxes(1, 2))


def test_transformers_reads_the_config_as_we_do(family: str) -> None:
    config, _ = small(family)
    values = config_to_hf(config)
    theirs = transformers.AutoConfig.for_model(**values)
    assert theirs.hidden_size == config.d_model and theirs.num_attention_heads == config.n_heads
    assert theirs.vocab_size == config.vocab_size
    if config.positions == "rope":
        assert theirs.get_text_config().head_dim == config.head_dim
