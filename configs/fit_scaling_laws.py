"""Which points scaling laws are fitted to: the published ones behind Chinchilla, or a sweep of our own.

    python -m experiments.fit_scaling_laws --config=configs/fit_scaling_laws.py                               # a minute
    python -m experiments.fit_scaling_laws --config=configs/fit_scaling_laws.py:sweep --workdir=runs/scaling/laws

The published points were read off figure 4 of Hoffmann et al. by *Chinchilla Scaling: A replication attempt*, Besiroglu
et al., https://arxiv.org/abs/2404.10102, who leave out the five of the highest loss.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The published points; "sweep" are those of runs/scaling (configs/scaling_sweep.py)."""
    if arg not in ("", "sweep"):
        raise ValueError(f"unknown argument {arg!r} of configs/fit_scaling_laws.py; have ['', 'sweep']")
    config = ConfigDict(
        {
            "points": "published",  # or a CSV file, or a folder of experiments.scaling_sweep
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "columns": {"parameters": "Model Size", "flops": "Training FLOP", "loss": "loss"},
            "count": "parameters",  # of a sweep, what N is: or "parameters_no_embed"
            "drop_highest": 5,
            "budgets": (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21),  # of the IsoFLOP parabolas
            "tolerance": 0.1,
            "samples": 200,
            "seed": 0,
            "compare": ("hoffmann", "besiroglu"),
            "optimal_for": (1e21, 5.76e23),
        }
    )
    if arg == "sweep":
        config.update({"points": "runs/scaling", "drop_highest": 0, "compare": (), "optimal_for": (1e12, 1e13, 1e15)})
        config.budgets = (6e11, 1.5e12, 4e12)
    return config
