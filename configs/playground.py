"""The page: a model to play with, completions to rank, documents to ask, agents to follow, runs to watch.

    python -m experiments.playground --config=configs/playground.py --config.model=runs/base/decoder
    python -m experiments.playground --config=configs/playground.py:runs/lifecycle/page    # what the main job made
    python -m experiments.playground --config=configs/playground.py --config.model=gpt2 \
        --config.labels=runs/labels --config.documents=runs/rag --config.runs=runs

It is the server of configs/serve.py, with the same settings, and needs the same extra; nothing on the page comes from
elsewhere. Labels: a folder with samples.jsonl (`id`, `prompt`, `completions`) and perhaps guidelines.md.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from configs import serve
from research.apps.retrieval.prompt import INSTRUCTION

PARTS = ("model", "reader", "documents", "labels", "traces")
SETTINGS = "settings.json"


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` is a folder that holds any of `PARTS`, and perhaps further settings in settings.json."""
    if arg and not any((Path(arg) / part).is_dir() for part in PARTS):
        raise ValueError(f"{arg} holds none of {list(PARTS)}")
    config = ConfigDict(
        {
            **serve.get_config().to_dict(),
            "labels": "",  # completions that people rank; what they said stands beside them
            "documents": "",  # a folder of configs/rag.py:index
            "reader": "",  # a model that answers from documents; empty: the one that is served
            "answers": {"instruction": INSTRUCTION, "k": 4, "new_tokens": 64, "stop": ("\n",)},
            "traces": "",  # a folder of agents' traces (*.jsonl); empty: one in the workdir
            "agent": {
                "budget": {"steps": 6, "tokens": 1024, "step_tokens": 128, "repeats": 2},
                "isolation": "",  # the least that its programs are run in; empty: it runs none
            },
            "runs": "",  # a folder below which training runs have their metrics.jsonl
        }
    )
    for part in PARTS if arg else ():
        if (Path(arg) / part).is_dir():
            config[part] = str(Path(arg) / part)
    if arg and (Path(arg) / SETTINGS).is_file():
        config.update(json.loads((Path(arg) / SETTINGS).read_text(encoding="utf-8")))
    return config
