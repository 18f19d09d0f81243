"""An agent with tools: asks one question, shows every step, keeps the run as a JSON line.

    python -m experiments.agent --config=configs/agent.py --config.question="..." --config.model=FOLDER
    python -m experiments.agent --config=configs/agent.py --config.mode=chat --config.model=https://.../v1 \\
        --config.name=MODEL --config.key_variable=MY_KEY
    python -m experiments.agent --config=configs/agent.py:tiny    # stories260K, which cannot: to see it run

Seconds beside what the model takes. ReAct is that of https://arxiv.org/abs/2210.03629, chain of thought that of
https://arxiv.org/abs/2205.11916 (zero-shot), PAL that of https://arxiv.org/abs/2211.10435.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """One question; `tiny` is two short steps of stories260K."""
    if arg not in ("", "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/agent.py; have ['', 'tiny']")
    return ConfigDict(
        {
            "question": "What is 17 * 23?" if arg else "",
            "mode": "react",  # react; chat: function calling; cot: chain of thought; pal: programs
            "model": "",  # a folder or file, or an address; empty: stories260K of the data
            "tokenizer": "",  # where it is not beside the model
            "name": "",  # the model's, at an address
            "key_variable": "",  # the environment variable that holds the address's key
            "precision": "f32",
            "tools": ("calculator", "python"),  # of react and chat; also search and wiki, which need documents
            "documents": "",  # a folder of text, Markdown, HTML, PDF or JSON lines
            "head": "",  # a file that stands in front of the question, or FILE.json#KEY; empty: the tools are told
            "lead": "Question",  # stands before the question
            "isolation": "bubblewrap",  # the least that programs are run in
            "budget": {"steps": 2 if arg else 8, "tokens": 4096, "step_tokens": 24 if arg else 256, "repeats": 2},
            "samples": 1,  # of cot and pal: their answers vote
            "temperature": 0.0,
            "seed": 0,
            "data": "",  # where stories260K is; empty: LIFECYCLE_DATA, else ../shared/data
        }
    )
