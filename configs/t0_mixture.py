"""Multi-task instruction tuning on a folder of JSONL files, one per task template (the 15 T0 templates): a mixture.

    python -m experiments.train --config=configs/t0_mixture.py --config.init_from=runs/base/base_decoder \
        --config.tokenizer.path=runs/base/base_decoder --workdir=runs/t0
    python -m experiments.train --config=configs/t0_mixture.py:path/to/folder ...       # your own tasks

Every file of the folder is a part: mixed by size, at most `cap` examples of each counted, tempered; its held-out loss
is logged by name. The folder is t0_templates under LIFECYCLE_DATA, by default ../shared/data.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """One section per file; examples that do not fit a row are left out."""
    shared = os.environ.get("LIFECYCLE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(arg) if arg else Path(shared) / "t0_templates"
    # The published file of one template has prompts without completions: there is nothing to learn from it.
    files = [f for f in sorted(folder.glob("*.jsonl")) if f.stem != "trec_which_category_best_describes"]
    if not files:
        raise ValueError(f"no .jsonl file in {folder}: set LIFECYCLE_DATA, or give configs/t0_mixture.py:folder")
    part = {"kind": "examples", "objective": "tune", "length": 256, "heldout": 0.1, "long": "drop"}
    return ConfigDict(
        {
            "steps": 200,
            "seed": 0,
            "init_from": "",
            "peft": (),
            "evaluate_every": 50,
            "evaluate_batches": 2,
            "save_every": 100,
            "model": {"policy": "bf16"},
            "tokenizer": {"path": ""},
            "data": {
                "mix": {file.stem: {**part, "path": str(file)} for file in files},
                "cap": 100,
                "temperature": 2.0,
                "batch_size": 8,
                "seed": 0,
            },
            "optimizer": {
                "name": "adamw",
                "schedule": "linear",
                "learning_rate": 3e-4,
                "warmup": 10,
                "end": 0.0,
                "clip": 1.0,
            },
        }
    )
