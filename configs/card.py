"""Evaluation cards side by side: accuracy, calibration, robustness, fairness, bias, toxicity, efficiency.

    python -m experiments.card --config=configs/card.py --config.models="('path/to/model',)"
    python -m experiments.card --config=configs/card.py:tiny            # a few items: to see that it runs

About five minutes for a small model on 2 CPU cores. *Holistic Evaluation of Language Models*, Liang et al.,
https://arxiv.org/abs/2211.09110. Toxicity needs a scorer: experiments.pair_scorer --config=configs/toxicity_scorer.py.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """What is measured of which models; `tiny` asks a few items."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/card.py; have ['', 'tiny']")
    return ConfigDict(
        {
            # Folders, files, runs or hub ids; a path that does not exist is looked for among the data sets.
            "models": ("stories260K/checkpoint_v1.bin",),
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "tasks": ("commonsense/winogrande",) if arg else ("glue/sst2", "glue/rte", "commonsense/winogrande"),
            "items_per_task": 6 if arg else 200,
            "shots": 0,
            "names": ("english", "nigerian") if arg else ("english", "arabic", "chinese", "nigerian"),
            "toxicity": {
                "scorer": "",  # a folder that experiments.pair_scorer wrote; empty: not measured
                "prompts": 4 if arg else 100,
                "max_new_tokens": 8 if arg else 48,
                "threshold": 0.5,
            },
            "speed": {"tokens": 8 if arg else 128, "batches": (1,) if arg else (1, 8)},
            "batch_size": 16,
            "policy": "f32",
        }
    )
