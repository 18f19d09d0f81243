"""What the three base models share: sizes, data, optimizer, and their smaller and larger settings."""

from ml_collections import ConfigDict

ARGUMENTS = ("", "tiny", "gpu")


def base_config(name: str, arg: str, *, preset: str, objective: str, model: dict, learning_rate: float) -> ConfigDict:
    """About 2 million parameters in some ten minutes on 2 CPU cores; `gpu`: 100 to 250 million; `tiny`: seconds."""
    if arg not in ARGUMENTS:
        raise ValueError(f"unknown argument {arg!r} of configs/{name}.py; have {list(ARGUMENTS)}")
    heldout, length = 0.02, 256
    config = ConfigDict(
        {
            "name": name if not arg else f"{name}_{arg}",
            "tokenizer": {
                "vocab_size": 4096,
                "sentinels": 32,
                "every": 3,
                "heldout": heldout,
                "max_text_length": 16_384,
            },
            "model": {"preset": preset, "max_length": length, "policy": "bf16", "unroll": True, **model},
            "data": {"kind": "python_sources", "objective": objective, "length": length, "heldout": heldout},
            "pretrain": {
                "steps": 1500,
                "batch_size": 16,
                "seed": 0,
                "optimizer": {
                    "name": "adamw",
                    "schedule": "cosine",
                    "end": 0.05,
                    "clip": 1.0,
                    "learning_rate": learning_rate,
                    "warmup": 100,
                    "weight_decay": 0.1,
                },
                "evaluate_every": 300,
                "evaluate_batches": 8,
                "save_every": 300,
                "final_batches": 64,
            },
        }
    )
    if arg == "tiny":
        config.tokenizer.update({"vocab_size": 512, "every": 400})
        config.model.update({"d_model": 32, "n_layers": 1, "n_heads": 2, "head_dim": 16})
        config.model.update({"d_ff": 64, "policy": "f32"})
        config.data.kind = "python_docs"
        config.pretrain.update({"steps": 4, "batch_size": 4, "evaluate_every": 2, "evaluate_batches": 1})
        config.pretrain.update({"save_every": 2, "final_batches": 2})
        config.pretrain.optimizer.warmup = 2
    if arg == "gpu":
        config.tokenizer.update({"vocab_size": 16_384, "sentinels": 100, "every": 1})
        config.model.update({"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 3072, "unroll": False})
        config.model.update({"head_dim": 64, "max_length": 1024})
        config.data.length = 1024
        config.pretrain.update({"steps": 3000, "batch_size": 32})
        config.pretrain.optimizer.learning_rate = learning_rate / 3
    return config
