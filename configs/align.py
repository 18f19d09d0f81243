"""Ways to the same reward at the same KL: SFT on the best answers, best-of-n, PPO, DPO, IPO; and pairs without doubt.

python -m experiments.align --config=configs/align.py --workdir=runs/ppo             # 3 seeds, after those of PPO
python -m experiments.align --config=configs/align.py:tiny --workdir=runs/align_tiny # a few steps, to see it run

See *Direct Preference Optimization*, https://arxiv.org/abs/2305.18290; *A General Theoretical Paradigm to Understand
Learning from Human Preferences*, https://arxiv.org/abs/2310.12036.
"""

from ml_collections import ConfigDict

from configs import ppo


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of PPO, with what learns from pairs beside it."""
    config, tiny = ppo.get_config(arg), arg == "tiny"
    config.pairs = {"answers": 4 if tiny else 8}  # sampled for each prompt; the best one against the worst
    config.methods = {
        "SFT on the best": {"loss": "sft"},
        "DPO": {"loss": "dpo", "options": {"beta": 0.1}},
        "IPO": {"loss": "ipo_sums", "options": {"tau": 0.02}},
    }
    config.tuning = {
        "steps": 4 if tiny else 400,
        "batch_size": 4 if tiny else 16,
        "evaluate_every": 2 if tiny else 20,
        "optimizer": {"learning_rate": 3e-5, "schedule": "constant", "clip": 1.0},
    }
    config.at_kl = (0.5,) if tiny else (1.5, 4.0)  # nats at which the methods are compared
    # A few pairs, learned again and again: how far apart their two answers come.
    config.certain = {
        "pairs": 4 if tiny else 16,
        "steps": 4 if tiny else 600,
        "learning_rate": 3e-5,
        "losses": {  # h is held by β or τ: the strict ones stay nearer to the untouched model
            "DPO": {"loss": "dpo", "options": {"beta": 0.1}},
            "DPO strict": {"loss": "dpo", "options": {"beta": 1.0}},
            "IPO": {"loss": "ipo_sums", "options": {"tau": 0.1}},
            "IPO strict": {"loss": "ipo_sums", "options": {"tau": 0.5}},
        },
    }
    return config
