"""What a model forgets: stories260K tuned on Shakespeare, or a small base tuned on one task out of fourteen.

    python -m experiments.forgetting --config=configs/forgetting.py                 # texts; every method, 3 seeds
    python -m experiments.forgetting --config=configs/forgetting.py:tasks \
        --config.model=runs/t0/checkpoints --config.tokenizer=runs/base/base_decoder --workdir=runs/forgetting_tasks
    python -m experiments.forgetting --config=configs/forgetting.py:tiny            # a few steps: to see it run

`tasks` begins with a model that was tuned on all of them (configs/t0_mixture.py).
"""

from ml_collections import ConfigDict

LINEAR = r".*/(attention|mlp)/\w+/kernel"
LORA = {"method": "lora", "target": LINEAR}


def methods(old: str) -> dict[str, tuple]:
    """(recipe, learning rate, what is replayed); `old` is what the model knew."""
    return {
        "full": ([{"method": "full"}], 1e-3, {}),
        "full, low rate": ([{"method": "full"}], 1e-4, {}),
        "full, 10 % replay": ([{"method": "full"}], 1e-3, {old: 0.1}),
        "full, 50 % replay": ([{"method": "full"}], 1e-3, {old: 0.5}),
        "lora r1": ([LORA | {"rank": 1}], 5e-3, {}),
        "lora r8": ([LORA | {"rank": 8}], 5e-3, {}),
        "lora r8, 10 % replay": ([LORA | {"rank": 8}], 5e-3, {old: 0.1}),
        "dora r8": ([LORA | {"method": "dora", "rank": 8}], 5e-3, {}),
        "houlsby 16": ([{"method": "houlsby", "width": 16}], 5e-3, {}),
        "(ia)3": ([{"method": "ia3"}], 2e-2, {}),
        "norms": ([{"method": "norms"}], 5e-3, {}),
        "last layer": ([{"method": "last_layers", "count": 1}], 2e-3, {}),
        "prompt 16": ([{"method": "prompt", "length": 16}], 3e-2, {}),
        "prefix 16": ([{"method": "prefix", "length": 16}], 1e-2, {}),
    }


TEXTS = {
    "shakespeare": {"text": "tinyshakespeare/input.txt"},
    "published stories": {"fenced": "stories260K/stories260K.md.txt"},
    "novels": {"text": "open_domain_books/tiny_open_domain_books.dev.jsonl", "limit": 200},
    "python documentation": {"python_docs": True, "limit": 100},
}
TASKS = ("sciq_Direct_Question", "ag_news_classify_with_choices", "glue_mrpc_same_thing", "gigaword_in_a_nutshell",
         "rotten_tomatoes_Reviewer_Enjoyment", "glue_qqp_duplicate")  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    """The grid; see the module's text for the arguments."""
    if arg not in ("", "tasks", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/forgetting.py; have ['', 'tasks', 'tiny']")
    tasks = {name: {"examples": f"t0_templates/{name}.jsonl"} for name in TASKS}
    parts = {**tasks, "python documentation": {"python_docs": True, "limit": 100}} if arg == "tasks" else TEXTS
    chosen = methods("python documentation" if arg == "tasks" else "own samples")
    if arg == "tasks":
        # All tasks together, each as often as the one to learn.
        chosen["multi-task"] = ([{"method": "full"}], 1e-3, dict.fromkeys(TASKS[1:], 1 / len(TASKS)))
    if arg == "tiny":
        chosen = {"full, 50 % replay": chosen["full, 50 % replay"]}
    return ConfigDict(
        {
            "model": "",  # a folder, run or llama2.c file; empty: stories260K of the data folder
            "tokenizer": "",  # empty: beside the model
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "parts": parts,
            "learn": next(iter(parts)),
            "remember": list(parts)[1:] if arg == "tasks" else ["own samples", "published stories"],
            # Samples of the model itself stand for what it was trained on, where that is not at hand.
            "samples": {"count": 0 if arg == "tasks" else 8 if arg else 512, "seed": 0},
            "methods": {n: {"recipe": m[0], "learning_rate": m[1], "replay": m[2]} for n, m in chosen.items()},
            "seeds": (0,) if arg == "tiny" else (0, 1, 2),
            "steps": 3 if arg == "tiny" else 100 if arg == "tasks" else 400,
            "batch_size": 8,
            "length": 32 if arg == "tiny" else 256,
            "heldout_batches": 1 if arg == "tiny" else 12,
            "policy": "f32",
        }
    )
