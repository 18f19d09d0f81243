"""Instruction-tune a checkpoint on your own JSONL (messages, prompt/completion, Alpaca columns): loss on answers only.

    python -m experiments.train --config=configs/instruct.py --config.init_from=path/to/model \
        --config.tokenizer.path=path/to/model --config.data.path=my_examples.jsonl --workdir=runs/instruct
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Packed examples, a tenth of the pre-training rate, the best of the evaluations kept."""
    return ConfigDict(
        {
            "steps": 300,
            "seed": 0,
            "accumulate": 1,
            "init_from": "",
            "trainable": (),
            "evaluate_every": 25,
            "evaluate_batches": 0,
            "patience": 4,
            "save_every": 100,
            "model": {"policy": "bf16", "unroll": False, "remat": "none"},
            "tokenizer": {"path": ""},
            "data": {
                "kind": "examples",
                "path": "",
                "objective": "tune",
                "length": 512,
                "batch_size": 8,
                "long": "truncate",
            },
            "optimizer": {
                "name": "adamw",
                "schedule": "linear",
                "learning_rate": 1e-4,
                "warmup": 10,
                "end": 0.0,
                "clip": 1.0,
                "weight_decay": 0.0,
            },
        }
    )
