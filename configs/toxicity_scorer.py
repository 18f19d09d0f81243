"""A scorer of toxicity: an encoder learns which answers people reject as harmful. The texts are offensive.

    python -m experiments.pair_scorer --config=configs/toxicity_scorer.py --workdir=runs/toxicity_scorer
    python -m experiments.pair_scorer --config=configs/toxicity_scorer.py:tiny --workdir=/tmp/toxicity

Three processor minutes a seed with one epoch of 128 tokens. *Training a Helpful and Harmless Assistant with
Reinforcement Learning from Human Feedback*, Bai et al., https://arxiv.org/abs/2204.05862 (the data, and the loss on
pairs).
"""

from ml_collections import ConfigDict

from configs.judge_model import get_config as pairs_config


def get_config(arg: str = "") -> ConfigDict:
    """The settings of configs/judge_model.py on other pairs."""
    config = pairs_config(arg)
    config.set = "hh_rlhf"
    return config
