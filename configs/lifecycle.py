"""The main job: a model's life from plain text to answers, on the documentation that comes with Python.

    python -m experiments.lifecycle --config=configs/lifecycle.py
    python -m experiments.lifecycle --config=configs/lifecycle.py --config.pretrain.steps=2000 --workdir=/tmp/life
    python -m experiments.lifecycle --config=configs/lifecycle.py:tiny        # seconds: to see that it runs

About twelve minutes on 2 CPU cores. LLaMA-style decoder (RMSNorm, RoPE, SwiGLU), *LLaMA: Open and Efficient
Foundation Language Models*, Touvron et al., https://arxiv.org/abs/2302.13971; matrices learn by Muon, *Muon is Scalable
for LLM Training*, Liu et al., https://arxiv.org/abs/2502.16982.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.compress import PLAIN

ARGUMENTS = ("", "tiny")
OURS = Path(__file__).parents[1] / "experiments" / "laws" / "python_sources.json"


def get_config(arg: str = "") -> ConfigDict:
    """The settings of all stages; `tiny` shrinks every one of them."""
    if arg not in ARGUMENTS:
        raise ValueError(f"unknown argument {arg!r} of configs/lifecycle.py; have {list(ARGUMENTS)}")
    config = ConfigDict(
        {
            "processes": 2,  # that do stages at the same time, on a CPU; on an accelerator one does them all
            # Held-out shares are of documents and of functions; limit 0 takes all documents.
            "documents": {"held_out": 0.08, "held_out_functions": 0.1, "limit": 0},
            "tokenizer": {"vocab_size": 4096, "kind": "bpe", "seed_size": 200_000, "max_text_length": 16_384},
            "model": {
                "preset": "llama-7b",
                "d_model": 192,
                "n_layers": 4,
                "n_heads": 3,
                "d_ff": 512,
                "max_length": 256,
                "tied": True,
                "policy": "bf16",
                "unroll": True,
            },
            "pretrain": {
                "steps": 720,
                "batch_size": 8,
                "seed": 0,
                "optimizer": optimizer(learning_rate=4e-3, warmup=40, weight_decay=0.1),
                "evaluate_every": 180,
                "evaluate_batches": 8,
                "save_every": 180,
            },
            "ngram_context": 5,
            "tune": tuning(optimizer(learning_rate=1e-3, warmup=10, weight_decay=0.0)),
            "lora": tuning(
                {"name": "adamw", "schedule": "cosine", "end": 0.05, "clip": 1.0, "learning_rate": 5e-3, "warmup": 10},
                {"method": "lora", "rank": 8, "alpha": 16.0, "target": r".*/(attention|mlp)/\w+/kernel"},
            ),
            "prompt": tuning(
                {"name": "adamw", "schedule": "cosine", "end": 0.05, "clip": 1.0, "learning_rate": 3e-2, "warmup": 10},
                {"method": "prompt", "length": 16, "init": "vocabulary"},
            ),
            "answers": {"questions_per_task": 32, "max_new_tokens": 32, "batch_size": 32, "shown": 24},
            "shots": shots(),
            "card": {"tokens": 64, "batches": (1, 8)},
            "quantize": {"forms": forms(), "documents": 16, "prompt": 128, "new_tokens": 64},
            **fewer_numbers(),
            "memory": {"compiled": ("pretrain", "lora")},  # runs whose step is compiled again, to compare with
            # Published laws, or a laws.json of experiments.fit_scaling_laws.
            "scaling": {"laws": ("hoffmann", "besiroglu", str(OURS))},
            **preferences(),
            "rag": rag(),
            "reasoning": reasoning(),
            "samples": samples(),
        }
    )
    if arg == "tiny":
        shrink(config)
    return config


def tuning(optimizer: dict, *peft: dict) -> dict:
    """As many steps on the same rows whatever learns; no method: everything does."""
    return {
        "steps": 200,
        "batch_size": 8,
        "seed": 1,
        "peft": peft,
        "optimizer": optimizer,
        "evaluate_every": 50,
        "evaluate_batches": 8,
        "save_every": 50,
    }


def preferences() -> dict:
    """Pairs of sampled answers, a reward model, PPO against it and DPO without it: *Training language models to follow
    instructions with human feedback*, https://arxiv.org/abs/2203.02155; *Direct Preference Optimization*,
    https://arxiv.org/abs/2305.18290.
    """
    adamw = {"name": "adamw", "schedule": "cosine", "end": 0.05, "clip": 1.0, "warmup": 10}
    adapters = {"method": "lora", "rank": 8, "alpha": 16.0, "target": r".*/(attention|mlp)/\w+/kernel"}
    run = {"batch_size": 8, "evaluate_every": 40, "evaluate_batches": 12, "save_every": 20}
    return {
        # Questions of each kind with at most prompt_length tokens, and sampled answers to each of them.
        "pairs": {
            "per_task": 64,
            "held_out_per_task": 32,
            "samples": 4,
            "prompt_length": 96,
            "new_tokens": 32,
            "batch_size": 128,
        },
        "reward": {"steps": 100, "seed": 2, "optimizer": adamw | {"learning_rate": 3e-4}, **run},
        "ppo": {
            "seed": 3,
            "peft": (adapters,),
            "held_out_per_task": 16,
            "method": {"clip": 0.2, "value_weight": 0.1},
            "schedule": {
                "iterations": 16,
                "rollouts": 32,
                "minibatch": 8,
                "epochs": 2,
                "kl_coefficient": 0.05,
                "evaluate_every": 4,
                "save_every": 4,
            },
            "optimizer": {"name": "adamw", "schedule": "constant", "clip": 1.0, "learning_rate": 1e-3},
        },
        "dpo": {"steps": 80, "seed": 4, "peft": (adapters,), "beta": 0.1, "optimizer": adamw | {"learning_rate": 1e-3}}
        | run,
        "policies": {"samples": 2, "seed": 5, "shown": 12},
    }


def forms() -> dict:
    """Recipes of `research.weights` and the precision of the rest; tables are in int8 below 16 bits."""
    tables = {"method": "int8", "target": "embed/tokens/embedding"}
    return {
        "f32": {"recipe": (), "policy": "f32"},
        "bf16": {"recipe": (), "policy": "bf16"},
        "int8": {"recipe": (tables, {"method": "int8"}), "policy": "bf16"},
        "NF4": {"recipe": (tables, {"method": "nf4"}), "policy": "bf16"},
    }


def fewer_numbers() -> dict:
    """Forms of `configs.compress`: masked or cut, with or without training again, and with the model as the teacher."""
    int8 = ({"method": "int8", "target": "embed/tokens/embedding"}, {"method": "int8"})
    form, half = PLAIN | {"policy": "bf16"}, {"columns": 0.5}
    run = {
        "seed": 6,
        "batch_size": 8,
        "recovery": {"steps": 40, "learning_rate": 1e-3, "lora_rank": 8, "batches": 2},
    }
    pruned = {
        "Wanda 50 %, trained": form | {"prune": {"method": "wanda", "sparsity": 0.5}, "recover": "full"},
        "half the columns": form | {"slim": half},
    }
    distilled = {
        "half the columns, distilled": form | {"slim": half, "recover": "distil"},
        "half the columns, distilled, int8": form | {"slim": half, "recover": "distil", "quantize": int8},
    }
    return {"prune": run | {"forms": pruned}, "distil": run | {"forms": distilled}}


def shots() -> dict:
    """Questions with wrong answers beside the right one, examples drawn from a pool of others.

    A question and an example are at most these shares of the window, so that several examples fit.
    """
    return {
        "questions_per_task": 24,
        "pool": 200,
        "question": 0.5,
        "example": 0.25,
        "wrong": 3,
        "ks": (0, 3),
        "how": "nearest",
        "seed": 0,
        "batch_size": 32,
    }


def reasoning() -> dict:
    """A model of its own, taught from scratch: *PAL: Program-aided Language Models*, https://arxiv.org/abs/2211.10435;
    *ReAct: Synergizing Reasoning and Acting in Language Models*, https://arxiv.org/abs/2210.03629.
    """
    return {
        "seed": 0,
        "sandbox": "bubblewrap",  # the least isolation that its programs are run in
        "problems": {"steps": (1, 4), "numbers": (1, 20), "most": 99},
        "registry": {"count": 5, "people": 150, "newcomers": 30, "changed": 0.4},
        "tokenizer": {"texts": 1500, "vocab_size": 600},
        "model": {
            "d_model": 128,
            "n_layers": 3,
            "n_heads": 4,
            "d_ff": 336,
            "max_length": 384,
            "tied": True,
            "policy": "bf16",
        },
        "training": {
            "steps": 900,
            "batch_size": 2,
            "length": 256,
            "optimizer": "muon",
            "learning_rate": 5e-3,
            "prompt_weight": 0.2,
        },
        "questions": 30,
        "new_tokens": 64,
    }


def rag() -> dict:
    """Passages of some modules, an encoder and a reader that begin as the pre-trained model, questions about functions
    that it never read: *Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks*,
    https://arxiv.org/abs/2005.11401.
    """
    return {
        "kind": "bm25",  # by which the reader finds its passages; an encoder of so few steps would lead it astray
        "modules": 60,
        "passage": 56,
        "k": 3,
        "known": 240,
        "questions": 32,
        "new_tokens": 32,
        "seed": 7,
        "encoder": {
            "lengths": (24, 96),
            "batch_size": 32,
            "steps": 40,
            "learning_rate": 5e-4,
            "temperature": 0.05,
        },
        "reader": {"batch_size": 8, "steps": 60, "learning_rate": 1e-3},
    }


def samples() -> dict:
    """Beginnings, and the ways to go on from them."""
    return {
        "prompts": ("Return the", "The module defines the following", "Raise an exception if"),
        "max_new_tokens": 64,
        "seed": 0,
        "samplings": {
            "greedy": {},
            "temperature": {"temperature": 1.0},
            "top_k": {"temperature": 1.0, "top_k": 20},
            "top_p": {"temperature": 1.0, "top_p": 0.9},
        },
    }


def optimizer(**settings) -> dict:
    """Muon for the matrices inside layers, AdamW for the rest, with a cosine schedule."""
    return {"name": "muon", "schedule": "cosine", "end": 0.05, "clip": 1.0, **settings}


def shrink(config: ConfigDict) -> None:
    """Seconds instead of minutes; the numbers mean nothing."""
    config.documents.limit = 12
    config.tokenizer.vocab_size = 512
    config.model.update({"d_model": 32, "n_layers": 1, "n_heads": 2, "d_ff": 64, "max_length": 192, "policy": "f32"})
    for stage in (config.pretrain, config.tune, config.lora, config.prompt, config.reward, config.dpo):
        stage.update({"steps": 6, "batch_size": 4, "evaluate_every": 3, "evaluate_batches": 1, "save_every": 2})
        stage.optimizer.warmup = 2
    config.answers.update({"questions_per_task": 2, "max_new_tokens": 8, "batch_size": 4, "shown": 4})
    config.samples.update({"prompts": ("Return the",), "max_new_tokens": 8})
    config.shots.update({"questions_per_task": 2, "pool": 8, "question": 1.0, "example": 0.6, "ks": (0, 1)})
    config.shots.batch_size = 8
    config.card.update({"tokens": 4, "batches": (1,)})
    config.quantize.update({"documents": 2, "prompt": 8, "new_tokens": 4})
    config.quantize.forms = {name: config.quantize.forms[name] for name in ("f32", "NF4")}
    for stage in (config.prune, config.distil):
        stage.recovery.update({"steps": 2, "batches": 1})
        stage.batch_size = 2
    config.memory.compiled = ("lora",)
    config.pairs.update({"per_task": 2, "held_out_per_task": 2, "samples": 2, "new_tokens": 8, "batch_size": 8})
    config.ppo.held_out_per_task = 2
    config.ppo.schedule.update({"iterations": 2, "rollouts": 4, "minibatch": 2, "epochs": 1})
    config.ppo.schedule.update({"evaluate_every": 1, "save_every": 1})
    config.reasoning.update({"questions": 6, "new_tokens": 8})
    config.reasoning.tokenizer.update({"texts": 200, "vocab_size": 480})
    config.reasoning.model.update({"d_model": 32, "n_layers": 1, "d_ff": 64, "policy": "f32"})
    config.reasoning.training.steps = 4
    config.policies.update({"samples": 2, "shown": 4})
    config.rag.update({"modules": 12, "passage": 40, "k": 1, "known": 4, "questions": 2, "new_tokens": 4})
    config.rag.encoder.update({"lengths": (8, 16), "batch_size": 4, "steps": 2})
    config.rag.reader.update({"batch_size": 2, "steps": 2})
