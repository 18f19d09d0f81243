"""PEFT methods side by side: a real pretrained MiniLM encoder on SST-2 and RTE.

python -m experiments.peft_table --config=configs/peft_table.py           # every cell, 3 seeds
python -m experiments.peft_table --config=configs/peft_table.py:tiny      # one method, a few steps: to see it run
python -m experiments.peft_table --config="configs/peft_table.py:full=lora all r8" --workdir=runs/peft_table_full
"""

from ml_collections import ConfigDict

ATTENTION = r".*/attention/(q|k|v|o)/kernel"
LINEAR = r".*/(attention|mlp)/\w+/kernel"
METHODS = {
    "head only": ([], 1e-3),
    "full": ([{"method": "full"}], 5e-5),
    "bitfit": ([{"method": "bitfit"}], 1e-3),
    "norms": ([{"method": "norms"}], 1e-3),
    "last 1 layer": ([{"method": "last_layers", "count": 1}], 2e-4),
    "last 2 layers": ([{"method": "last_layers", "count": 2}], 2e-4),
    **{f"lora qv r{r}": ([{"method": "lora", "rank": r, "alpha": 2.0 * r}], 1e-3) for r in (1, 2, 4, 8, 16, 32)},
    "lora attention r8": ([{"method": "lora", "rank": 8, "target": ATTENTION}], 1e-3),
    "lora all r8": ([{"method": "lora", "rank": 8, "target": LINEAR}], 1e-3),
    "dora all r8": ([{"method": "dora", "rank": 8, "target": LINEAR}], 1e-3),
    "houlsby 16": ([{"method": "houlsby", "width": 16}], 1e-3),
    "(ia)3": ([{"method": "ia3"}], 5e-3),
    "prompt 20": ([{"method": "prompt", "length": 20}], 1e-2),
    "prefix 20": ([{"method": "prefix", "length": 20}], 1e-2),
}


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `full=METHOD` is one method on all 20,000 rows of SST-2, `tiny` one on a few rows."""
    kind, _, method = arg.partition("=")
    if kind == "full" and method not in METHODS:
        raise ValueError(f"unknown method {method!r} of configs/peft_table.py:full; have {sorted(METHODS)}")
    if kind != "full" and arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/peft_table.py; have ['', 'full=METHOD', 'tiny']")
    tiny = arg == "tiny"
    chosen = {"": list(METHODS), "tiny": ["lora qv r4"]}.get(arg, [method])
    suffix = ", all rows" if method else ""  # a cell of its own beside the one on fewer rows
    return ConfigDict(
        {
            "model": "",  # a BERT folder; empty: the one of the extra `minilm`
            "data": "",  # the folder with sst2/ and rte/; empty: LIFECYCLE_DATA, else ../shared/data
            "tasks": ("sst2",) if arg else ("sst2", "rte"),
            "methods": {n + suffix: {"recipe": METHODS[n][0], "learning_rate": METHODS[n][1]} for n in chosen},
            "seeds": (0,) if arg else (0, 1, 2),
            "rows": 32 if tiny else 0 if method else 3000,
            "dev_rows": 16 if tiny else 0,  # 0: all
            "lengths": (64,) if tiny else (16, 32, 64, 128, 192),  # what rows are padded to
            "batch_size": 16 if tiny else 32,
            "epochs": 1,
            "policy": "f32" if tiny else "bf16",
        }
    )
