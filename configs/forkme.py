"""A config to copy: a small Llama-style decoder on the Python documentation; change what you need.

    python -m experiments.train --config=configs/forkme.py --workdir=runs/forkme
    python -m experiments.train --config=configs/forkme.py:tiny --workdir=/tmp/tiny        # seconds: to see it run
    python -m experiments.train --config=configs/forkme.py --config.data.kind=text --config.data.path=my_texts/ ...

About 0.7 million parameters and 0.8 million tokens: minutes on a CPU.
"""

from ml_collections import ConfigDict

ARGUMENTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """The run; `tiny` shrinks it to seconds."""
    if arg not in ARGUMENTS:
        raise ValueError(f"unknown argument {arg!r} of configs/forkme.py; have {list(ARGUMENTS)}")
    config = ConfigDict(
        {
            "steps": 400,
            "seed": 0,
            "accumulate": 1,
            "init_from": "",
            "trainable": (),
            "evaluate_every": 100,
            "evaluate_batches": 8,
            "patience": 0,
            "save_every": 100,
            "keep": 2,
            "log_every": 1,
            "tensorboard": False,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1},
            "model": {
                "preset": "llama-7b",
                "d_model": 128,
                "n_layers": 4,
                "n_heads": 4,
                "d_ff": 352,
                "max_length": 256,
                "tied": True,
                "residual_dropout": 0.0,
                "policy": "f32",
                "unroll": False,
                "remat": "none",
            },
            "tokenizer": {"path": "", "kind": "bpe", "vocab_size": 2048},
            "data": {
                "kind": "python_docs",
                "path": "",
                "objective": "causal",
                "length": 256,
                "batch_size": 8,
                "heldout": 0.05,
            },
            "optimizer": {
                "name": "adamw",
                "schedule": "cosine",
                "learning_rate": 3e-3,
                "warmup": 40,
                "end": 0.1,
                "clip": 1.0,
                "weight_decay": 0.1,
            },
            "loss_scale": {"initial": 65536.0, "growth_interval": 2000, "floor": 1.0},  # of the policy "f16" alone
        }
    )
    if arg == "tiny":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Seconds on one core, through the same code."""
    config.model.update({"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "max_length": 32})
    config.tokenizer.update({"path": "bytes"})
    config.data.update({"length": 32, "batch_size": 4})
    config.optimizer.update({"warmup": 2})
    config.update({"steps": 8, "evaluate_every": 4, "evaluate_batches": 2, "save_every": 3})
