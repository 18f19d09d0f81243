"""How much examples in the prompt help: k = 0 to what the window holds, drawn in three ways, asked in two.

    python -m experiments.shots_sweep --config=configs/shots_sweep.py               # stories260K
    python -m experiments.shots_sweep --config=configs/shots_sweep.py --config.model=runs/base/decoder
    python -m experiments.shots_sweep --config=configs/shots_sweep.py:tiny          # a few questions: to see it run

After *Language Models are Few-Shot Learners*, https://arxiv.org/abs/2005.14165, figure 1.2, and *What Makes Good
In-Context Examples for GPT-3?*, https://arxiv.org/abs/2101.06804. A task is a benchmark's name, or a file of rows with
a template: {"file": "dev.tsv", "pool": "train.tsv", "template": "{{ text }} ||| {{ label }}", "choices": "no ||| yes"}.
"""

from ml_collections import ConfigDict

TASKS = {
    "sst2": {
        "file": "sst2/dev.first436.tsv",
        "pool": "sst2/train.20000.tsv",
        "template": "Review: {{ sentence }}\nThe review is ||| {{ ['bad', 'good'][label | int] }}",
        "choices": "bad ||| good",
    },
    "rte": {"benchmark": "glue/rte"},
    "svamp": {"benchmark": "svamp"},
}


def get_config(arg: str = "") -> ConfigDict:
    """The sweep; see the module's text for the argument."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/shots_sweep.py; have ['', 'tiny']")
    tiny = arg == "tiny"
    return ConfigDict(
        {
            "model": "",  # a folder, run or llama2.c file; empty: stories260K of the data folder
            "tokenizer": "",  # empty: beside the model
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "tasks": {"sst2": TASKS["sst2"]} if tiny else TASKS,
            "how": ("random",) if tiny else ("random", "balanced", "nearest"),
            # Questions without choices are asked by generation only.
            "forms": ("likelihood", "generation"),
            # Ends where no question has room for one more, or the data ends.
            "k": (0, 1, 64) if tiny else (0, 1, 2, 4, 8, 16, 32, 64, 128),
            "seeds": (0,) if tiny else (0, 1, 2),
            "limit": 4 if tiny else 100,  # questions of each task, the first ones
            "window": 0,  # tokens; 0: all that the model holds
            "max_new_tokens": 8,
            "batch_size": 4 if tiny else 16,
            "policy": "f32",
        }
    )
