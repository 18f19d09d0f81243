"""Precision on a real training run, and where the numbers of trained models leave float16.

    python -m experiments.precision --config=configs/precision.py --workdir=runs/precision    # after the base models
    python -m experiments.precision --config=configs/precision.py:tiny --workdir=/tmp/precision    # to see it run

The base models and their tokenizer are those of `experiments.base_models`.
"""

from ml_collections import ConfigDict

from configs import base_decoder

POLICIES = {
    "f32": {"policy": "f32"},
    "bf16 products": {"policy": "bf16"},
    "bf16 throughout": {"policy": "pure_bf16"},
    "f16, not scaled": {"policy": "f16", "loss_scale": {"initial": 1.0, "growth_interval": 0}},
    "f16, scale 2^10": {"policy": "f16", "loss_scale": {"initial": 2.0**10, "growth_interval": 0}},
    "f16, scale 2^24": {"policy": "f16", "loss_scale": {"initial": 2.0**24, "growth_interval": 0}},
    "f16, dynamic scale": {"policy": "f16", "loss_scale": {"initial": 2.0**16, "growth_interval": 8}},
}


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` is two policies, one seed and a few steps, on bytes."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/precision.py; have ['', 'tiny']")
    base = base_decoder.get_config(arg)
    config = ConfigDict(
        {
            "policies": POLICIES,
            "seeds": (0, 1, 2),
            "tokenizer": "runs/base/base_decoder",
            "model": {name: value for name, value in base.model.items() if name not in ("policy", "unroll")},
            "data": {"kind": "python_docs", "objective": "causal", "length": 128, "heldout": 0.02},
            "steps": 150,
            "batch_size": 8,
            "heldout_batches": 32,
            "optimizer": {**base.pretrain.optimizer.to_dict(), "warmup": 15},
            "bases": {"decoder": "runs/base/base_decoder", "encoder-decoder": "runs/base/base_encdec"},
            "probe_rows": 8,  # of held-out text, on which the numbers of a trained model are looked at
            "probe_scales": tuple(2.0**n for n in range(0, 29, 4)),
        }
    )
    if arg == "tiny":
        kept = ("bf16 products", "f16, dynamic scale")
        config.policies = ConfigDict({name: POLICIES[name] for name in kept})
        config.update({"seeds": (0,), "tokenizer": "bytes", "steps": 4, "batch_size": 2, "heldout_batches": 1})
        config.bases = ConfigDict()
        config.optimizer.warmup = 1
        config.data.length = 32
    return config
