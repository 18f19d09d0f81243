"""Tasks of the LM evaluation harness on a model of ours; the tasks of experiments/harness_tasks read local files.

    python -m experiments.harness --config=configs/harness.py --config.model=runs/lifecycle/base/checkpoints
    python -m experiments.harness --config=configs/harness.py:tiny      # stories260K on a few rows: to see it run

stories260K needs about 10 minutes for all of it on two CPU cores, the tiny form less than one. Tasks of the harness's
own need their data in the cache of `datasets`. See *Lessons from the Trenches on Reproducible Evaluation of Language
Models*, Biderman et al., https://arxiv.org/abs/2405.14782.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """All local tasks; `tiny` is four rows of two of them."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/harness.py; have ['', 'tiny']")
    return ConfigDict(
        {
            "model": "",  # a Hugging Face folder, a run of ours or a llama2.c file; empty: stories260K of the data
            "tokenizer": "",  # empty: beside the model
            "precision": "f32",
            "tasks": ("sst2", "gsm8k") if arg else ("sst2", "boolq", "piqa", "shakespeare", "gsm8k"),
            "folder": "experiments/harness_tasks",  # task files; {data} in them is the folder below
            "data": "",  # empty: LIFECYCLE_DATA, else ../shared/data
            "shots": -1,  # -1: as the task says
            "limit": 4 if arg else 0,  # rows of each task; 0: all
            "batch_size": 4 if arg else 16,
            "length": 0,  # the most tokens of a request; 0: what the model takes
            "chat": False,  # through the tokenizer's chat template
            "seed": 0,  # of the drawn examples
        }
    )
