"""Sentences and tokens classified: a masked-word base (configs/base_encoder.py) against the same from scratch.

python -m experiments.encoder_tasks --config=configs/encoder_tasks.py             # every cell, 3 seeds
python -m experiments.encoder_tasks --config=configs/encoder_tasks.py:tiny        # a few steps: to see it run
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` is one epoch of a few rows."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/encoder_tasks.py; have ['', 'tiny']")
    return ConfigDict(
        {
            "base": "runs/base/base_encoder",  # a Hugging Face folder or hub id of an encoder
            "data": "",  # the folder with sst2/ and rte/; empty: LIFECYCLE_DATA, else ../shared/data
            # Training rows of each task (0: all), and how often each is seen.
            "tasks": {
                "sst2": {"rows": 32 if arg else 8000, "epochs": 1 if arg else 2},
                "rte": {"rows": 32 if arg else 0, "epochs": 1 if arg else 4},
                "syntax": {"rows": 32 if arg else 2000, "epochs": 1 if arg else 3},
            },
            "starts": ("base", "scratch"),
            "learning_rate": 5e-4,
            "seeds": (0,) if arg else (0, 1, 2),
            "dev_rows": 16 if arg else 400,
            "lengths": (128,) if arg else (16, 32, 64, 128),  # what rows are padded to
            "batch_size": 16 if arg else 32,
            "policy": "f32" if arg else "bf16",
        }
    )
