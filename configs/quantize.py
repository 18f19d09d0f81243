"""Bits against quality: stories260K and a MiniLM tuned on SST-2 in every quantized form.

    python -m experiments.quantize --config=configs/quantize.py             # every form, 3 seeds where one matters
    python -m experiments.quantize --config=configs/quantize.py:tiny        # a few forms, little text: to see it run
    python -m experiments.quantize --config=configs/quantize.py --config.subjects="('stories260K',)"

Tables of embeddings are in int8 in every form below 16 bits. Methods: *LLM.int8()*, https://arxiv.org/abs/2208.07339;
*SmoothQuant*, https://arxiv.org/abs/2211.10438; *QLoRA* (NF4, FP4), https://arxiv.org/abs/2305.14314; *GPTQ*,
https://arxiv.org/abs/2210.17323; *AWQ*, https://arxiv.org/abs/2306.00978.
"""

from ml_collections import ConfigDict

TABLES = {"method": "int8", "target": "embed/tokens/embedding"}
DYNAMIC, SMOOTH = {"method": "int8_dynamic"}, {"method": "smoothquant"}


def static(how: str) -> dict:
    """Activations in int8 with one scale for each weight's inputs."""
    return {"method": "int8_static", "range": how}


# Rules behind that of the tables.
RULES = {
    "int8": [{"method": "int8"}],
    "int8, int8 cache": [{"method": "int8"}],
    "W8A8 dynamic": [DYNAMIC],
    "W8A8 static, absmax": [static("absmax")],
    "W8A8 static, percentile": [static("percentile")],
    "W8A8 static, MSE": [static("mse")],
    "SmoothQuant, dynamic": [SMOOTH, DYNAMIC],
    "SmoothQuant, static absmax": [SMOOTH, static("absmax")],
    "NF4": [{"method": "nf4"}],
    "NF4, scales in f32": [{"method": "nf4", "double": False}],
    "FP4": [{"method": "fp4"}],
    "FP4, scales in f32": [{"method": "fp4", "double": False}],
    "int4": [{"method": "int4"}],
    "int3": [{"method": "int3"}],
    **{f"GPTQ {bits}": [{"method": "gptq", "bits": bits}] for bits in (4, 3)},
    **{f"GPTQ {bits}, layer by layer": [{"method": "gptq", "bits": bits}] for bits in (4, 3)},
    **{f"AWQ {bits}": [{"method": "awq", "bits": bits}] for bits in (4, 3)},
    **{f"AWQ {bits}, clipped": [{"method": "awq", "bits": bits, "clip": True}] for bits in (4, 3)},
    **{f"QAT {bits}": [{"method": f"int{bits}"}] for bits in (4, 3)},
}
SEEDED = ("static", "SmoothQuant", "GPTQ", "AWQ", "QAT")  # the calibration sample, or the order of training
TINY = ("f32", "bf16", "int8, int8 cache", "W8A8 static, MSE", "GPTQ 3, layer by layer", "QAT 3")


def methods() -> dict[str, dict]:
    """Recipe, precision of what is left, type of the cache, bits to train for, and whether a seed matters."""
    plain = {"recipe": (), "policy": "f32", "cache": "", "train_bits": 0, "by_layer": False, "seeded": False}
    found = {"f32": plain, "bf16": plain | {"policy": "bf16"}, "int8 cache": plain | {"cache": "int8"}}
    for name, rules in RULES.items():
        found[name] = plain | {
            "recipe": (TABLES, *rules),
            "cache": "int8" if "cache" in name else "",
            "train_bits": int(name[-1]) if name.startswith("QAT") else 0,
            "by_layer": "layer by layer" in name,
            "seeded": any(word in name for word in SEEDED),
        }
    return found


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` takes a few methods and little text."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/quantize.py; have ['', 'tiny']")
    tiny = arg == "tiny"
    return ConfigDict(
        {
            "subjects": ("stories260K",) if tiny else ("stories260K", "SST-2"),
            "methods": {name: m for name, m in methods().items() if not tiny or name in TINY},
            "seeds": (0,) if tiny else (0, 1, 2),
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "stories260K": {
                "samples": {"count": 16 if tiny else 512, "seed": 0},  # written by the model, a quarter held out
                "length": 32 if tiny else 256,
                "batch_size": 4 if tiny else 8,
                "calibration_rows": 4 if tiny else 16,
                "tune": {"steps": 2 if tiny else 300, "learning_rates": {"3": 1e-3, "4": 2e-4}},  # by bits
                "speed": {"rows": 2 if tiny else 8, "new_tokens": 4 if tiny else 128},
            },
            "SST-2": {
                "model": "",  # a BERT folder; empty: the one of the extra `minilm`
                "rows": 32 if tiny else 0,  # 0: all 20,000
                "dev_rows": 16 if tiny else 0,
                "lengths": (64,) if tiny else (32, 64),
                "batch_size": 16 if tiny else 32,
                "learning_rate": 5e-5,
                "policy": "f32" if tiny else "bf16",  # of the tuning before any bits are taken away
                "calibration_rows": 4 if tiny else 16,
                "tune": {"steps": 2 if tiny else 60, "learning_rates": {"3": 3e-5, "4": 3e-5}},
            },
        }
    )
