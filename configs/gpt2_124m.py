"""GPT-2 124M from scratch on your own text (*Language Models are Unsupervised Multitask Learners*, Radford et al.).

    python tools/prepare_corpus.py my_texts/ --tokenizer=path/to/gpt2 --out=corpus/
    python -m experiments.train --config=configs/gpt2_124m.py --config.data.path=corpus/ \
        --config.tokenizer.path=path/to/gpt2 --workdir=runs/gpt2

Sized for one accelerator of 80 GB or a mesh of them (`--config.mesh.fsdp=8`): half a million tokens a step.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The recipe of the GPT-3 paper's smallest model (Brown et al., table 2.1): cosine to a tenth, 6e-4 at the top."""
    return ConfigDict(
        {
            "steps": 20_000,
            "seed": 0,
            "accumulate": 16,
            "evaluate_every": 500,
            "evaluate_batches": 20,
            "save_every": 500,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1},
            "model": {
                "preset": "gpt2",
                "vocab_size": 50_304,  # padded to a multiple of 128, which matrix units like
                "embed_dropout": 0.0,
                "attention_dropout": 0.0,
                "residual_dropout": 0.0,
                "policy": "bf16",
                "unroll": True,
                "remat": "none",
            },
            "tokenizer": {"path": ""},
            "data": {"kind": "corpus", "path": "", "objective": "causal", "length": 1024, "batch_size": 512},
            "optimizer": {
                "name": "adamw",
                "schedule": "cosine",
                "learning_rate": 6e-4,
                "warmup": 700,
                "end": 0.1,
                "clip": 1.0,
                "b2": 0.95,
                "weight_decay": 0.1,
            },
        }
    )
