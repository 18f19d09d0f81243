"""Programs of the data sets in the sandbox: how many give their targets, what goes wrong, how many a second.

    python -m experiments.programs --config=configs/programs.py
    python -m experiments.programs --config=configs/programs.py:tiny    # 20 of each

About half a minute on 2 CPU cores. *PAL: Program-aided Language Models*, Gao et al., https://arxiv.org/abs/2211.10435;
*Evaluating Large Language Models Trained on Code*, Chen et al., https://arxiv.org/abs/2107.03374.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """All programs, or 20 of each set with `tiny`."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/programs.py; have ['', 'tiny']")
    return ConfigDict(
        {
            "sets": ("gsm_hard", "aqua", "humaneval"),
            "limit": 20 if arg else 0,  # programs of each set, the first ones; 0: all
            "sandbox": "bubblewrap",  # the least isolation that will do: unsafe, bubblewrap or namespaces
            "data": "",  # empty: LIFECYCLE_DATA, else ../shared/data
        }
    )
