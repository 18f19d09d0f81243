"""Reward models on hh-rlhf's harmless pairs: beside length and words. The texts are offensive.

python -m experiments.reward_model --config=configs/reward_model.py              # 3 seeds; needs runs/base/base_decoder
python -m experiments.reward_model --config=configs/reward_model.py:tiny --workdir=runs/reward_tiny    # to see it run

About fifteen processor minutes. See *Training language models to follow instructions with human feedback*, Ouyang et
al., https://arxiv.org/abs/2203.02155 (the loss), and *Training a Helpful and Harmless Assistant with Reinforcement
Learning from Human Feedback*, Bai et al., https://arxiv.org/abs/2204.05862 (the pairs).
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The ways to learn a reward; `tiny` is the encoder's alone, a few pairs each."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/reward_model.py; have ['', 'tiny']")
    # base: a Hugging Face folder; empty: the extra `minilm`. loss: "pairs" (Bradley-Terry), or "classes" (cross-entropy
    # of "preferred" against "rejected" for each answer alone).
    encoder = {"base": "", "loss": "pairs", "learning_rate": 1e-4, "epochs": 1}
    decoder = {"base": "runs/base/base_decoder", "loss": "pairs", "learning_rate": 3e-4, "epochs": 2}
    ways = {"encoder, pairs": encoder, "encoder, classes": encoder | {"loss": "classes"}}
    return ConfigDict(
        {
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "ways": ways if arg else ways | {"decoder, pairs": decoder},
            "held_out": 0.1,  # share of the questions
            "pairs": 24 if arg else 0,  # of each side; 0: all
            "seeds": (0,) if arg else (0, 1, 2),
            "length": 32 if arg else 96,  # tokens of a question with its answer
            "batch_size": 8,  # pairs
            "policy": "f32" if arg else "bf16",
            "bins": 5,  # of equal size, for the calibration
        }
    )
