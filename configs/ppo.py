"""PPO of stories260K against an encoder tuned on SST-2, with the KL to the untouched model free, fixed and steered.

python -m experiments.ppo --config=configs/ppo.py                                  # 3 seeds
python -m experiments.ppo --config=configs/ppo.py:tiny --workdir=runs/ppo_tiny     # a few iterations, to see it run

See *Fine-Tuning Language Models from Human Preferences*, https://arxiv.org/abs/1909.08593.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The grid of KL settings; "tiny" counts letters and needs no encoder."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/ppo.py; have ['', 'tiny']")
    tiny = arg == "tiny"
    kl = {
        "free": {"kl_coefficient": 0.0},
        "fixed": {"kl_coefficient": 0.2},
        "adaptive": {"kl_coefficient": 0.2, "kl_target": 6.0, "kl_gain": 0.2},
    }
    return ConfigDict(
        {
            "policy": "",  # any model that `experiments.loading` reads; empty: stories260K of the data folder
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "reward": "count a" if tiny else "sst2 proxy",  # or "module:function"
            "gold": "count e" if tiny else "sst2 gold",  # judges only; nothing learns from it; empty: none
            "best_of": 4 if tiny else 64,  # answers to each held-out prompt, for best-of-n; 0: none
            "kl": {"adaptive": kl["adaptive"]} if tiny else kl,
            "seeds": (0,) if tiny else (0, 1, 2),
            "peft": (),  # such as {"method": "lora", "rank": 8}: the reference is then the base below it, no copy
            "trunk": "shared" if tiny else "own",  # a value loss that grows with β ruins a trunk so small
            "prompts": {"count": 32 if tiny else 512, "tokens": 24, "seed": 1},
            "prompt_length": 24,
            "new_tokens": 16 if tiny else 48,
            "held_out": 8 if tiny else 64,
            "ppo": {"clip": 0.2, "value_weight": 0.1, "entropy_weight": 0.0, "temperature": 1.0},
            "schedule": {
                "iterations": 8 if tiny else 40,
                "rollouts": 8 if tiny else 64,
                "minibatch": 4 if tiny else 16,
                "epochs": 2 if tiny else 4,
                "stop_kl": 0.2,
                "evaluate_every": 4 if tiny else 5,
                "save_every": 1 if tiny else 5,
            },
            "stop": {},  # such as {"score": 3.0, "kl": 30.0}: a run ends when its evaluation reaches one of them
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant", "clip": 1.0},
            "sentiment": {
                "model": "",  # a BERT folder; empty: the one of the extra `minilm`
                # (first row, how many; 0: all that follow): the proxy has read none of the gold judge's sentences
                "parts": {"proxy": (0, 4000), "gold": (4000, 0)},
                "dev_rows": 0,
                "lengths": (32, 64),
                "batch_size": 32,
                "learning_rate": 5e-5,
                "policy": "bf16",
                "read_length": 64,
            },
        }
    )
