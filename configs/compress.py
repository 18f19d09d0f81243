"""Every way to a smaller model in one table: fewer bits, fewer numbers, fewer units, and all of them together.

    python -m experiments.compress --config=configs/compress.py                         # every form, 3 seeds
    python -m experiments.compress --config=configs/compress.py:tiny                    # a few forms: to see it run
    python -m experiments.compress --config=configs/compress.py --config.budget.bytes=300000

A form is pruned (a mask, or units cut out), recovers by training (from the labels, or from the whole model as the
teacher too: α = 0.5 and T = 2, the defaults of research.recipes.distill), and is quantized, in this order. Methods:
*Wanda*, https://arxiv.org/abs/2306.11695; *SparseGPT*, https://arxiv.org/abs/2301.00774; *Are Sixteen Heads Really
Better than One?*, https://arxiv.org/abs/1905.10650.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import quantize

PLAIN: dict[str, Any] = {
    "prune": (),  # a rule with a mask
    "stages": 1,  # prunings on the way to its sparsity, with recovery in between
    "slim": {},  # "columns": share that stays, "heads": how many stay, "layers": which go
    "recover": "",  # "full", "lora" or "distil"
    "quantize": (),
    "policy": "f32",
}


def rule(method: str, **options: Any) -> dict[str, Any]:
    """One rule of a recipe."""
    return {"method": method, **options}


INT8, INT4 = (quantize.TABLES, rule("int8")), (quantize.TABLES, rule("gptq", bits=4))
HALF = {"sparsity": 0.5}
STUDENT = {"layers": (1, 3), "columns": 0.5}  # begins as what is left of the teacher
FORMS: dict[str, dict[str, Any]] = {
    "f32": {},
    "bf16": {"policy": "bf16"},
    "int8": {"quantize": INT8},
    "GPTQ 4": {"quantize": INT4},
    "NF4": {"quantize": (quantize.TABLES, rule("nf4"))},
    "magnitude 50 %": {"prune": rule("magnitude", **HALF)},
    "Wanda 50 %": {"prune": rule("wanda", **HALF)},
    "SparseGPT 50 %": {"prune": rule("sparsegpt", **HALF)},
    "magnitude 2:4": {"prune": rule("magnitude", pattern="2:4")},
    "Wanda 2:4": {"prune": rule("wanda", pattern="2:4")},
    "SparseGPT 2:4": {"prune": rule("sparsegpt", pattern="2:4")},
    "magnitude 50 %, trained": {"prune": rule("magnitude", **HALF), "recover": "full"},
    "Wanda 50 %, trained": {"prune": rule("wanda", **HALF), "recover": "full"},
    "Wanda 50 %, LoRA": {"prune": rule("wanda", **HALF), "recover": "lora"},
    "magnitude 75 %, trained": {"prune": rule("magnitude", sparsity=0.75), "recover": "full"},
    "magnitude 75 %, gradual": {"prune": rule("magnitude", sparsity=0.75), "recover": "full", "stages": 6},
    "half the columns": {"slim": {"columns": 0.5}},
    "half the columns, trained": {"slim": {"columns": 0.5}, "recover": "full"},
    "half the heads, trained": {"slim": {"heads": 0.5}, "recover": "full"},
    "without a layer, trained": {"slim": {"layers": (-2,)}, "recover": "full"},
    "half the columns, trained, int8": {"slim": {"columns": 0.5}, "recover": "full", "quantize": INT8},
    "Wanda 50 %, trained, int8": {"prune": rule("wanda", **HALF), "recover": "full", "quantize": INT8},
    "Wanda 50 %, trained, GPTQ 4": {"prune": rule("wanda", **HALF), "recover": "full", "quantize": INT4},
    "Wanda 50 %, distilled": {"prune": rule("wanda", **HALF), "recover": "distil"},
    "half the columns, distilled": {"slim": {"columns": 0.5}, "recover": "distil"},
    "half the columns, distilled, int8": {"slim": {"columns": 0.5}, "recover": "distil", "quantize": INT8},
    "student, trained": {"slim": STUDENT, "recover": "full"},
    "student, distilled": {"slim": STUDENT, "recover": "distil"},
    "student, distilled, int8": {"slim": STUDENT, "recover": "distil", "quantize": INT8},
}
TINY = (
    *("f32", "int8", "Wanda 2:4", "magnitude 75 %, gradual", "Wanda 50 %, LoRA", "half the columns, trained, int8"),
    "student, distilled, int8",
)


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` takes a few forms and little text."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/compress.py; have ['', 'tiny']")
    tiny, subjects = arg == "tiny", quantize.get_config(arg)
    return ConfigDict(
        {
            "subjects": subjects.subjects,
            "forms": {name: PLAIN | form for name, form in FORMS.items() if not tiny or name in TINY},
            "seeds": subjects.seeds,
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "budget": {"bytes": 0, "decode": 0.0},  # at most so many bytes, at least so many tokens a second; 0: any
            "export": True,
            "stories260K": {
                **subjects["stories260K"].to_dict(),
                "recovery": {"steps": 2 if tiny else 300, "learning_rate": 1e-3, "lora_rank": 8, "batches": 4},
            },
            "SST-2": {
                **subjects["SST-2"].to_dict(),
                "recovery": {"steps": 2 if tiny else 200, "learning_rate": 3e-5, "lora_rank": 8, "batches": 4},
            },
        }
    )
