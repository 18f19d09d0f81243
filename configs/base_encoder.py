"""A small base model: encoder-only model, BERT style, that fills in masked tokens (15 %; 80/10/10).

    python -m experiments.base_models --config=configs/base_encoder.py          # 2 CPU cores, at most 15 minutes
    python -m experiments.base_models --config=configs/base_encoder.py:gpu      # 100 to 250 million parameters
    python -m experiments.base_models --config=configs/base_encoder.py:tiny     # seconds: to see that it runs

Text: the Python documentation and the standard library's source. See
*BERT: Pre-training of Deep Bidirectional Transformers*, Devlin et al., https://arxiv.org/abs/1810.04805.
"""

from ml_collections import ConfigDict

from configs.base_model import base_config


def get_config(arg: str = "") -> ConfigDict:
    """The settings of one base model; see `base_config` for the arguments."""
    config = base_config(
        "base_encoder",
        arg,
        preset="bert-base",
        objective="mlm",
        model={
            "d_model": 192,
            "n_layers": 4,
            "n_heads": 4,
            "head_dim": 48,
            "d_ff": 768,
            "embed_dropout": 0.0,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
        },
        learning_rate=1.5e-3,
    )
    if not arg:
        # A small masked model learns nothing but word frequencies for its first 1,800 updates: short rows, so that
        # it sees twice as many of them in the same time.
        config.data.length = 128
        config.pretrain.update({"batch_size": 32, "steps": 3000})
    return config
