"""Fine-tune an encoder-decoder (T5, BART) on your own JSONL: the encoder reads prompts, the decoder learns answers.

    python -m experiments.train --config=configs/seq2seq.py --config.init_from=path/to/t5 \
        --config.tokenizer.path=path/to/t5 --config.data.path=my_examples.jsonl --workdir=runs/seq2seq
    python -m experiments.train --config=configs/seq2seq.py:prompt ...          # a soft prompt learns, nothing else

Columns: prompt/completion, Alpaca's, or messages (the last one is learned). Other columns become examples by
`--config.data.templates='("Translate: {{ en }} ||| {{ de }}",)'`, several phrasings in turn
(research/data/task_templates.py). See *Exploring the Limits of Transfer Learning*, Raffel et al.,
https://arxiv.org/abs/1910.10683; soft prompts: Lester et al., https://arxiv.org/abs/2104.08691.
"""

from ml_collections import ConfigDict

RECIPES = {"": ((), 1e-3), "prompt": (({"method": "prompt", "length": 20},), 3e-2)}


def get_config(arg: str = "") -> ConfigDict:
    """Packed pairs, the best of the evaluations kept."""
    if arg not in RECIPES:
        raise ValueError(f"unknown argument {arg!r} of configs/seq2seq.py; have {sorted(RECIPES)}")
    peft, learning_rate = RECIPES[arg]
    return ConfigDict(
        {
            "steps": 300,
            "seed": 0,
            "accumulate": 1,
            "init_from": "",
            "peft": peft,
            "evaluate_every": 25,
            "evaluate_batches": 8,
            "patience": 4,
            "save_every": 100,
            "model": {"policy": "bf16", "unroll": False, "remat": "none"},
            "tokenizer": {"path": ""},
            "data": {
                "kind": "examples",
                "path": "",
                "objective": "seq2seq",
                "templates": (),
                "length": 256,  # the encoder's side
                "targets_length": 128,  # the decoder's
                "batch_size": 8,
                "long": "truncate",
            },
            "optimizer": {
                "name": "adamw",
                "schedule": "linear",
                "learning_rate": learning_rate,
                "warmup": 10,
                "end": 0.0,
                "clip": 1.0,
                "weight_decay": 0.0,
            },
        }
    )
