"""Small decoders that answer at once, by thinking or by programs, and that remember, read or look up facts; 3 seeds.

python -m experiments.reasoning --config=configs/reasoning.py                  # an hour of one CPU core
python -m experiments.reasoning --config=configs/reasoning.py:problems         # or :facts, one of the two alone
python -m experiments.reasoning --config=configs/reasoning.py:tiny --workdir=runs/reasoning_tiny   # to see it run

See *Chain-of-Thought Prompting Elicits Reasoning in Large Language Models*, https://arxiv.org/abs/2201.11903;
*PAL: Program-aided Language Models*, https://arxiv.org/abs/2211.10435; *ReAct: Synergizing Reasoning and Acting in
Language Models*, https://arxiv.org/abs/2210.03629; *Self-Consistency Improves Chain of Thought Reasoning in Language
Models*, https://arxiv.org/abs/2203.11171.
"""

from ml_collections import ConfigDict

WORLDS = ("problems", "facts")


def get_config(arg: str = "") -> ConfigDict:
    """Both worlds, one of them, or seconds of each, whose numbers mean nothing."""
    if arg not in ("", "tiny", *WORLDS):
        raise ValueError(f"unknown argument {arg!r} of configs/reasoning.py; have {['', 'tiny', *WORLDS]}")
    tiny = arg == "tiny"
    width, layers = (32, 1) if tiny else (128, 3)
    model = {"d_model": width, "n_layers": layers, "n_heads": 4, "d_ff": 8 * width // 3 // 8 * 8}
    model |= {"max_length": 512, "tied": True, "policy": "f32" if tiny else "bf16"}
    # The same steps, rows and lengths for all forms, so that all read as many tokens.
    training = {"batch_size": 2, "length": 384} if tiny else {"batch_size": 4, "length": 256}
    training |= {"optimizer": "muon", "learning_rate": 4e-3, "prompt_weight": 0.2}
    learned = {"steps": (1, 5), "numbers": (1, 499), "most": 999, "distractors": 0.2}
    return ConfigDict(
        {
            "worlds": (arg,) if arg in WORLDS else WORLDS,
            "seeds": (0,) if tiny else (0, 1, 2),
            "problems": {
                "forms": ("direct", "chain of thought", "program"),
                "sandbox": "bubblewrap",  # the least isolation that programs are run in
                "tokenizer": {"texts": 200 if tiny else 2000, "vocab_size": 480 if tiny else 600},
                "model": model,
                "training": training | {"steps": 4 if tiny else 2000},
                "learn": learned,
                "tests": {
                    "as trained": learned,
                    "more steps": {**learned, "steps": (6, 8)},
                    "larger numbers": {**learned, "numbers": (500, 999), "most": 9999},
                },
                "questions": 4 if tiny else 200,
                "votes": {
                    "forms": ("chain of thought",),
                    "samples": 2 if tiny else 5,
                    "temperature": 0.7,
                    "questions": 2 if tiny else 100,
                },
                "new_tokens": 16 if tiny else 160,
                "group": 4 if tiny else 100,
            },
            "facts": {
                "forms": ("closed book", "RAG", "ReAct"),
                "tokenizer": {"texts": 200 if tiny else 2000, "vocab_size": 480 if tiny else 600},
                "model": model,
                "training": training | {"steps": 4 if tiny else 600},
                # The last edition comes after training; RAG and ReAct learn to read in all before it.
                "registry": {"count": 9, "people": 200, "newcomers": 40, "changed": 0.4},
                "passages": 3,
                "questions": 2 if tiny else 20,  # of each kind
                "new_tokens": 8 if tiny else 48,
                "group": 4 if tiny else 60,
            },
        }
    )
