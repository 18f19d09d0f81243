"""Sizes x tokens and IsoFLOP budgets of small decoders on the standard library's source and documentation.

    python -m experiments.scaling_sweep --config=configs/scaling_sweep.py                # at most two hours of one core
    python -m experiments.scaling_sweep --config=configs/scaling_sweep.py:tiny --workdir=/tmp/scaling       # a minute
    python -m experiments.scaling_sweep --config=configs/scaling_sweep.py:gpu --workdir=runs/scaling_gpu

See *Training Compute-Optimal Large Language Models*, Hoffmann et al., https://arxiv.org/abs/2203.15556: every token
count has a cosine schedule of its own. The warm-up of small models is short, *Resolving Discrepancies in
Compute-Optimal Scaling of Language Models*, Porian et al., https://arxiv.org/abs/2406.19146.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The grid; "gpu" has sizes up to 85 million parameters; "tiny" is two sizes and two token counts in seconds."""
    if arg not in ("", "tiny", "gpu"):
        raise ValueError(f"unknown argument {arg!r} of configs/scaling_sweep.py; have ['', 'tiny', 'gpu']")
    config = ConfigDict(
        {
            # Depth sets width, heads, learning rate (at base_width) and the tokens that `multiples` multiply.
            "depths": (1, 2, 3, 4, 5),
            "dial": {
                "width_per_layer": 24,
                "head_dim": 24,
                "learning_rate": 4e-3,  # the best of 2.5e-3, 5e-3, 1e-2, 2e-2 at depth 2 lies between the first two
                "base_width": 48,
                "rate_power": 0.5,
                "tokens_per_parameter": 20.0,
            },
            "tokens": (0.5e6, 1e6, 2e6, 4e6),
            "multiples": (1.0,),
            "budgets": (6e11, 1.5e12, 4e12),  # FLOPs; each gives every size one token count
            "span": (0.1e6, 9e6),  # tokens
            "seeds": (0, 1),
            "model": {"preset": "llama-7b", "tied": True, "max_length": 128, "policy": "f32", "unroll": True},
            "length": 128,
            "batch_size": 8,
            "optimizer": {"name": "adamw", "schedule": "cosine", "end": 0.1, "clip": 1.0, "weight_decay": 0.1},
            "warmup": 0.05,  # share of the steps
            "mesh": {},  # sizes of data, fsdp, tensor, sequence; empty: one device
            "text": {"data": {"kind": "python_sources", "heldout": 0.005}, "vocab_size": 512, "every": 8},
        }
    )
    if arg == "tiny":
        config.update({"depths": (1, 2), "tokens": (512, 1024), "multiples": (), "budgets": (), "span": (0, 1e6)})
        config.update({"seeds": (0,), "length": 32, "batch_size": 4})
        config.dial.update({"width_per_layer": 8, "head_dim": 4})
        config.text.update({"data": {"kind": "python_docs", "heldout": 0.01}, "every": 40})
    if arg == "gpu":
        config.depths = (2, 3, 4, 5, 6, 8, 10)
        config.dial.update({"width_per_layer": 64, "head_dim": 64, "learning_rate": 3e-3, "base_width": 256})
        config.update({"tokens": (4e6, 8e6, 16e6, 32e6), "budgets": (1e15, 3e15, 1e16), "span": (2e6, 64e6)})
        config.model.update({"max_length": 512, "policy": "bf16", "unroll": False})
        config.update({"length": 512, "batch_size": 32})
        config.text.update({"vocab_size": 4096, "every": 3})
    return config
