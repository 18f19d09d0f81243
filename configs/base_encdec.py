"""A small base model: encoder-decoder, T5 v1.1 style, that restores corrupted spans (15 %, mean length 3).

    python -m experiments.base_models --config=configs/base_encdec.py          # 2 CPU cores, at most 15 minutes
    python -m experiments.base_models --config=configs/base_encdec.py:gpu      # 100 to 250 million parameters
    python -m experiments.base_models --config=configs/base_encdec.py:tiny     # seconds: to see that it runs

Text: the Python documentation and the standard library's source. See
*Exploring the Limits of Transfer Learning*, Raffel et al., https://arxiv.org/abs/1910.10683.
"""

from ml_collections import ConfigDict

from configs.base_model import base_config


def get_config(arg: str = "") -> ConfigDict:
    """The settings of one base model; see `base_config` for the arguments."""
    return base_config(
        "base_encdec",
        arg,
        preset="t5-v1.1-small",
        objective="span",
        model={
            "d_model": 144,
            "n_layers": 3,
            "n_heads": 4,
            "head_dim": 36,
            "d_ff": 384,
            "embed_dropout": 0.0,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
        },
        learning_rate=3e-3,
    )
