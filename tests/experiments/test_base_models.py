"""The configs of the base models describe models of the promised size that can be built and written out."""

import importlib

import pytest

from experiments.stages import learning
from experiments.stages.base import STAGES
from experiments.stages.stage import check
from research.core import tree
from research.data.build import DataConfig
from research.interop import config_to_hf

NAMES = ("base_decoder", "base_encoder", "base_encdec")


class Pieces:
    pad_id, eos_id, bos_id = 0, 1, 3

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("arg", "low", "high"), [("", 1e6, 3e6), ("tiny", 1e4, 1e5), ("gpu", 8e7, 3e8)])
def test_sizes(name, arg, low, high):
    config = importlib.import_module(f"configs.{name}").get_config(arg).to_dict()
    check(STAGES, config)
    learning.check(config, ("pretrain",))
    DataConfig.of(config["data"])
    model = learning.model_of(config, Pieces(config["tokenizer"]["vocab_size"]))
    assert low <= tree.count(model.abstract()) <= high
    assert config_to_hf(model.config)["vocab_size"] == config["tokenizer"]["vocab_size"]


def test_three_models_share_one_tokenizer():
    keys = {STAGES[0].key(importlib.import_module(f"configs.{name}").get_config().to_dict(), {}) for name in NAMES}
    assert len(keys) == 1


def test_unknown_argument():
    with pytest.raises(ValueError, match=r"'huge'.*configs/base_decoder.py.*'gpu'"):
        importlib.import_module("configs.base_decoder").get_config("huge")
