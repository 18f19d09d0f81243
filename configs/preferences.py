"""Preference data from prompts: a story writer completes its own openings, two sentiment models rank what it wrote.

python -m experiments.preferences --config=configs/preferences.py
python -m experiments.preferences --config=configs/preferences.py:tiny --workdir=runs/preferences_tiny

Four processor minutes, most of them for the two encoders. Other labellers: {"scorer": FOLDER} of
experiments.reward_model or pair_scorer, {"judge": {"url": ..., "model": ...}} or {"judge": "module:function"},
{"people": FILE}, a form that is written there for someone to fill in. See *Learning to summarize from human feedback*,
Stiennon et al., https://arxiv.org/abs/2009.01325; pairs of K answers as in https://arxiv.org/abs/2203.02155.
"""

from ml_collections import ConfigDict

from configs.ppo import get_config as ppo_config


def get_config(arg: str = "") -> ConfigDict:
    """What is sampled and who ranks it; `tiny` counts letters and needs no encoder."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/preferences.py; have ['', 'tiny']")
    models = {"proxy": {"reward": "sst2 proxy"}, "gold": {"reward": "sst2 gold"}}
    letters = {"a": {"reward": "count a"}, "e": {"reward": "count e"}}
    return ConfigDict(
        {
            # Any model that `experiments.loading` reads, or {"url": ..., "model": ...}; empty: stories260K of the data.
            "writer": "",
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "prompts": "",  # JSONL with `prompt`, a text or a chat, and perhaps `id`; empty: openings by the writer
            "openings": {"count": 12 if arg else 128, "tokens": 24, "seed": 1},
            "completions": 3 if arg else 4,  # of each prompt
            "new_tokens": 16 if arg else 48,
            "temperature": 1.0,
            "seed": 0,
            "batch_size": 12 if arg else 32,  # completions that are written at a time
            "portion": 4 if arg else 16,  # prompts before they are stored: what a kill can lose
            "labellers": letters if arg else models,
            "agreement": True,  # of the labellers; needs two of them
            "conflicts": "share",  # or "majority", "drop": see `research.data.rankings.preferences_of`
            "sentiment": ppo_config(arg).sentiment,
        }
    )
