"""Constitutional AI with an assistant trained here: critiques, revisions, AI labels, a reward model, PPO and DPO.

python -m experiments.constitution --config=configs/constitution.py                # 3 seeds: 16 minutes of one core
python -m experiments.constitution --config=configs/constitution.py:tiny --workdir=runs/constitution_tiny

See *Constitutional AI: Harmlessness from AI Feedback*, https://arxiv.org/abs/2212.08073.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The whole loop; "tiny" shows in a minute that it runs, with an assistant that has learned nothing yet."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/constitution.py; have ['', 'tiny']")
    tiny = arg == "tiny"
    packed = {"length": 128 if tiny else 256, "batch_size": 2 if tiny else 8}
    width, layers = (32, 1) if tiny else (96, 3)
    return ConfigDict(
        {
            "constitution": "configs/constitution.json",
            "seeds": (0,) if tiny else (0, 1, 2),
            "tokenizer": {"vocab_size": 500 if tiny else 1100, "texts": 500 if tiny else 8000},
            "model": {
                "d_model": width,
                "n_layers": layers,
                "n_heads": 4,
                "head_dim": width // 4,
                "d_ff": 8 * width // 3,
                "max_length": 256,
                "tied": True,
            },
            # rate: at which shown answers break each principle. noise: of critiques, revisions and choices.
            "demonstrations": {"count": 60 if tiny else 40_000, "rate": 0.4, "noise": 0.1},
            "teaching": {**packed, "epochs": 1, "learning_rate": 3e-3, "prompt_weight": 0.2},
            "writing": {"new_tokens": 16 if tiny else 40, "batch_size": 8 if tiny else 96},
            "repeats": 1 if tiny else 6,  # answers to each of the 32 held-out questions that are measured
            "revising": {"answers": 1 if tiny else 8, "rounds": 2 if tiny else 4},
            "tuning": {**packed, "epochs": 1 if tiny else 6, "learning_rate": 1e-3, "prompt_weight": 0.0},
            "pairs": 1 if tiny else 12,  # of each of the 96 questions
            "reward": {
                "length": 64,
                "batch_size": 4 if tiny else 32,
                "steps": 2 if tiny else 200,
                "learning_rate": 5e-4,
            },
            "ppo": {
                "numbers": {"clip": 0.2, "value_weight": 0.1, "temperature": 1.0},
                "schedule": {
                    "iterations": 2 if tiny else 40,
                    "rollouts": 4 if tiny else 64,
                    "minibatch": 4 if tiny else 32,
                    "epochs": 1 if tiny else 2,
                    "stop_kl": 0.2,
                    "kl_coefficient": 0.05,
                    "evaluate_every": 1 if tiny else 10,
                    "save_every": 1 if tiny else 10,
                },
                "trunk": "shared" if tiny else "own",
                "learning_rate": 3e-4,
                "prompt_length": 32 if tiny else 20,
                "new_tokens": 8 if tiny else 32,
            },
            "dpo": {
                "length": 64,
                "batch_size": 4 if tiny else 32,
                "steps": 2 if tiny else 100,
                "learning_rate": 1e-4,
                "beta": 0.1,
            },
        }
    )
