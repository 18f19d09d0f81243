"""Translation, summaries and questions: a span-corruption base (configs/base_encdec.py) against the same from scratch.

python -m experiments.encdec_tasks --config=configs/encdec_tasks.py             # every cell, 3 seeds
python -m experiments.encdec_tasks --config=configs/encdec_tasks.py:tiny        # a few steps: to see it run
"""

from ml_collections import ConfigDict

FULL = ({"method": "full"},)
# What is read and written in one row of tokens, and for how long it is learned.
TASKS = {
    "translation": {"length": 160, "targets_length": 240, "epochs": 3, "max_new_tokens": 80},
    "summaries": {"length": 256, "targets_length": 128, "epochs": 1, "max_new_tokens": 96},
    "questions": {"length": 256, "targets_length": 32, "epochs": 6, "max_new_tokens": 16},
}


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` is two epochs of a few rows of each task."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/encdec_tasks.py; have ['', 'tiny']")
    short = {"epochs": 2, "max_new_tokens": 8} if arg else {}
    return ConfigDict(
        {
            "base": "runs/base/base_encdec",  # a Hugging Face folder or hub id
            "data": "",  # the folder with multi30k/, dialogsum/, ...; empty: LIFECYCLE_DATA, else ../shared/data
            "tasks": {name: task | short for name, task in TASKS.items()},
            "methods": {
                "base": {"start": "base", "recipe": FULL, "learning_rate": 2e-3},
                "scratch": {"start": "scratch", "recipe": FULL, "learning_rate": 2e-3},
            },
            "seeds": (0,) if arg else (0, 1, 2),
            "rows": 16 if arg else 4000,  # training examples of each part; 0: all
            "dev_rows": 4 if arg else 200,
            "batch_size": 4 if arg else 8,
            "answer_batch": 4 if arg else 50,
            "policy": "f32" if arg else "bf16",
        }
    )
