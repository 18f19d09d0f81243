"""A judge of answers: an encoder learns GPT-4's verdicts on AlpacaEval, from pairs of answers.

    python -m experiments.pair_scorer --config=configs/judge_model.py
    python -m experiments.pair_scorer --config=configs/judge_model.py:tiny      # a few steps: to see that it runs

About twelve processor minutes a seed. The loss is that of Bradley and Terry, as in *Training language models
to follow instructions with human feedback*, Ouyang et al., https://arxiv.org/abs/2203.02155; the verdicts are those of
*AlpacaFarm*, https://arxiv.org/abs/2305.14387. A score is given to each answer alone, so the place has no influence.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `tiny` is one epoch of a few pairs."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/judge_model.py; have ['', 'tiny']")
    return ConfigDict(
        {
            "set": "alpaca_eval",
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "base": "",  # an encoder's folder, such as runs/base/base_encoder; empty: the extra `minilm`
            "pairs": 24 if arg else 0,  # of each side; 0: all
            "epochs": 1 if arg else 4,
            "learning_rate": 5e-5,
            "seeds": (0,) if arg else (0, 1, 2),
            "length": 32 if arg else 192,
            "batch_size": 8 if arg else 16,  # pairs
            "policy": "f32" if arg else "bf16",
        }
    )
