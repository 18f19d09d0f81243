"""Learn from judged answers: pairs (DPO, robust DPO, IPO, hinge, SimPO, ORPO, a reward model) or single ones (KTO).

    python -m experiments.train --config=configs/preference_tuning.py:dpo --config.init_from=runs/base/base_decoder \
        --config.tokenizer.path=runs/base/base_decoder --workdir=runs/dpo
    python -m experiments.train --config=configs/preference_tuning.py:ipo,seq2seq ...   # an encoder-decoder
    python -m experiments.train --config=configs/preference_tuning.py:reward ...        # a scalar head; encoders too
    python -m experiments.train --config=configs/preference_tuning.py:kto,tiny --workdir=runs/kto   # seconds

With adapters the base below them is the reference, without a copy: --config.peft="({'method': 'lora', 'rank': 8},)".
The file (--config.data.path) is JSONL or JSON of any shape that research/data/preference.py and unpaired.py read;
by default hh-rlhf harmless of the folder LIFECYCLE_DATA, else ../shared/data: 160 steps of 8 rows, one pass over it.
See *Direct Preference Optimization*, Rafailov et al., https://arxiv.org/abs/2305.18290, and the other papers in
research/objectives.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

# What each loss is told; see research/recipes/losses.py.
LOSSES = {
    "dpo": {"beta": 0.1, "label_smoothing": 0.0},
    "robust": {"beta": 0.1, "label_smoothing": 0.1},
    "ipo": {"tau": 0.1},
    "ipo_sums": {"tau": 0.1},
    "hinge": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "orpo": {"weight": 0.1},
    "reward": {"center": 0.01},
    "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
}
ALONE = ("simpo", "orpo", "reward")  # the others compare with a reference
FURTHER = ("seq2seq", "tiny")


def get_config(arg: str = "dpo") -> ConfigDict:
    """`arg` is a loss, with `,seq2seq` for an encoder-decoder and `,tiny` for a model of seconds."""
    loss, *further = arg.split(",")
    if loss not in LOSSES or set(further) - set(FURTHER):
        raise ValueError(
            f"unknown argument {arg!r} of configs/preference_tuning.py; have one of {sorted(LOSSES)}, then "
            f"{list(FURTHER)}"
        )
    seq2seq, tiny = "seq2seq" in further, "tiny" in further
    shared = os.environ.get("LIFECYCLE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    # `adapter` is the base below `peft`, `batch` what was computed before; empty: by whether there is `peft`.
    beside = {} if loss in ALONE else {"reference": "", "reference_from": ""}
    # Beside a reference without dropout, dropout alone would look like a step away from it.
    still = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
    # A score is read at the last token, an encoder's at its first one.
    model = {"head": "scalar"} | ({"pooling": "last"} if seq2seq else {}) if loss == "reward" else {}
    config = ConfigDict(
        {
            "steps": 160,
            "seed": 0,
            "accumulate": 1,
            "init_from": "",
            "trainable": (),
            "peft": (),
            "evaluate_every": 40,
            "evaluate_batches": 0,
            "patience": 0,
            "save_every": 40,
            "mesh": {},
            "model": {"policy": "bf16", "unroll": False, "remat": "none", **still, **model},
            "tokenizer": {"path": ""},
            "loss": {"name": loss, **beside, **LOSSES[loss]},
            "data": {
                "kind": "examples",
                "path": str(Path(shared) / "hh_rlhf_harmless" / "harmless-base.dev.jsonl"),
                "objective": ("unpaired" if loss == "kto" else "preference") + ("_seq2seq" if seq2seq else ""),
                "length": 256,
                "targets_length": 0,
                "batch_size": 8,
                "heldout": 0.1,
                "long": "truncate",
                "unusable": "drop",
                "boundary": "joint",
                "chat_template": "",
            },
            "optimizer": {
                "name": "adamw",
                "schedule": "linear",
                "learning_rate": 5e-5,
                "warmup": 10,
                "end": 0.0,
                "clip": 1.0,
                "weight_decay": 0.0,
            },
        }
    )
    if tiny:
        shrink(config, "t5-small" if seq2seq else "llama-7b")
    return config


def shrink(config: ConfigDict, preset: str) -> None:
    """Seconds on one core, through the same code, from fresh weights."""
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "head_dim": 8, "d_ff": 32, "max_length": 512}
    config.model.update({"preset": preset, "policy": "f32", **sizes})
    config.tokenizer.path = "bytes"
    config.update({"steps": 6, "evaluate_every": 3, "evaluate_batches": 2, "save_every": 2})
    config.data.update({"batch_size": 4, "length": 384})
    config.optimizer.update({"learning_rate": 1e-2, "warmup": 1})
