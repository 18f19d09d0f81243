"""Instruction sets side by side: a small decoder (configs/base_decoder.py) tuned on their mixture, LoRA, from scratch.

    python -m experiments.instruct_sets --config=configs/instruct_sets.py             # every cell, 3 seeds
    python -m experiments.instruct_sets --config=configs/instruct_sets.py:tiny        # a few steps: to see it run

The sets are mixed in proportion to their rows. See *Finetuned Language Models Are Zero-Shot Learners*, Wei et al.,
https://arxiv.org/abs/2109.01652.
"""

from ml_collections import ConfigDict

# Shorter than Alpaca's own prompt, which costs a small vocabulary a quarter of a row; two phrasings in turn.
ALPACA = (
    "{{ instruction }}{% if input %}\n{{ input }}{% endif %}\nAnswer: ||| {{ output }}",
    "Instruction: {{ instruction }}{% if input %}\nInput: {{ input }}{% endif %}\nResponse: ||| {{ output }}",
)
SEED_TASK = "{{ instruction }}\n{{ instances[0].input }}\nAnswer: ||| {{ instances[0].output }}"
T0 = ("{{ prompt }}\nAnswer: ||| {{ completion }}",)
SETS = {
    "short tasks": (("llms_from_scratch_instruct/instruction-data.json",), ALPACA),
    "alpaca": (("alpaca_en_demo/alpaca_en_demo.train.json", "torchtune_tiny/alpaca_tiny.json"), ALPACA),
    "seed tasks": (("selfinstruct_seed_tasks/seed_tasks.jsonl",), (SEED_TASK,)),
    "headlines": (("t0_templates/gigaword_in_a_nutshell.jsonl",), T0),
    "paraphrases": (
        tuple(f"t0_templates/{name}.jsonl" for name in ("glue_qqp_duplicate", "glue_mrpc_same_thing")),
        T0,
    ),
    "science questions": (("t0_templates/sciq_Direct_Question.jsonl",), T0),
}
LINEAR = r".*/(attention|mlp)/\w+/kernel"
METHODS = {
    "full": ("base", [{"method": "full"}], 1e-3),
    "lora r8": ("base", [{"method": "lora", "rank": 8, "alpha": 16.0, "target": LINEAR}], 5e-3),
    "scratch": ("scratch", [{"method": "full"}], 2e-3),
}


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `tiny` is two sets, two methods and a few rows."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/instruct_sets.py; have ['', 'tiny']")
    sets = ("short tasks", "paraphrases") if arg else tuple(SETS)
    methods = ("lora r8", "scratch") if arg else tuple(METHODS)
    return ConfigDict(
        {
            "base": "runs/base/base_decoder",  # a Hugging Face folder or hub id
            "data": "",  # the folder of the sets' files; empty: LIFECYCLE_DATA, else ../shared/data
            "sets": {name: {"files": SETS[name][0], "templates": SETS[name][1]} for name in sets},
            "methods": {n: dict(zip(("start", "recipe", "learning_rate"), METHODS[n], strict=True)) for n in methods},
            "seeds": (0,) if arg else (0, 1, 2),
            "heldout": 0.2,
            "rows": 16 if arg else 0,  # training examples of each set; 0: all
            "dev_rows": 4 if arg else 40,
            "length": 256,
            "batch_size": 4 if arg else 8,
            "epochs": 1 if arg else 3,
            "max_new_tokens": 8 if arg else 40,
            "answer_batch": 4 if arg else 40,
            "policy": "f32" if arg else "bf16",
        }
    )
