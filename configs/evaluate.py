"""Models on benchmarks: every prompt and answer as JSON lines, a table with intervals and paired tests.

    python -m experiments.evaluate --config=configs/evaluate.py \
        --config.models="({'name': 'base', 'folder': 'runs/lifecycle/base/checkpoints'},)"
    python -m experiments.evaluate --config=configs/evaluate.py:tiny     # stories260K, a few questions: to see it run

Without models it is stories260K, which takes minutes on two CPU cores; the tiny form takes one. Zero-shot and
few-shot prompts are those of *Language Models are Few-Shot Learners*, Brown et al., https://arxiv.org/abs/2005.14165.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Choices and written answers with 0 and 2 examples; `tiny` is a few questions of two tasks."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/evaluate.py; have ['', 'tiny']")
    return ConfigDict(
        {
            # {name, folder} of a Hugging Face folder, a run of ours or a llama2.c file, with `tokenizer` if it is not
            # beside it; or {name, url, model, key_variable} of a server. Empty: stories260K of the data.
            "models": (),
            # Names, or {file, template, choices, pool, name, metrics, max_new_tokens} for rows of your own: see
            # research/evaluation/benchmarks/own_files.py.
            "tasks": ("glue/sst2", "svamp") if arg else ("glue/sst2", "glue/rte", "commonsense/boolq", "svamp"),
            "shots": (0, 1) if arg else (0, 2),
            "order": "random",  # of the examples: random, balanced, nearest or first
            "seed": 0,  # which questions (with a limit), which examples, what is drawn
            "limit": 6 if arg else 200,  # questions of each task, drawn at random; 0: all
            "long": "cut",  # a question that does not fit: "error", or "cut" at its beginning
            "temperature": 0.0,
            "precision": "f32",
            "batch_size": 4 if arg else 16,
            "portion": 4 if arg else 64,  # questions that are asked, and stored, together
            "samples": 1000,  # of the bootstrap
            "sandbox": "bubblewrap",  # the least isolation that programs are run in, where a task asks for them
            "data": "",  # empty: LIFECYCLE_DATA, else ../shared/data
        }
    )
