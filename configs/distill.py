"""Distillation on three families: MiniLM on SST-2, the story writer stories260K, a small translator; 3 seeds.

python -m experiments.distill --config=configs/distill.py                       # all families
python -m experiments.distill --config=configs/distill.py:decoder               # 29 minutes, on two cores in full use
python -m experiments.distill --config=configs/distill.py:tiny --workdir=runs/distill_tiny   # to see it run

`encoder_decoder.base` is a folder of configs/base_encdec.py; an empty name leaves that family out. See *Distilling the
Knowledge in a Neural Network*, https://arxiv.org/abs/1503.02531; *DistilBERT*, https://arxiv.org/abs/1910.01108;
*Sequence-Level Knowledge Distillation*, https://arxiv.org/abs/1606.07947; *On-Policy Distillation of Language Models*,
https://arxiv.org/abs/2306.13649.
"""

from ml_collections import ConfigDict

FAMILIES = ("encoder", "decoder", "encoder_decoder")
# What each option is, and what it is where nothing is said: `experiments.distill.PLAIN`.
OF_LABELS = {
    "without a teacher": {},
    **{f"T={t}": {"alpha": 0.5, "temperature": float(t)} for t in (1, 2, 4)},
    "T=2, layers": {
        "alpha": 0.5,
        "temperature": 2.0,
        "hidden": ((1, 2), (2, 4), (3, 6)),
        "attention": ((0, 0), (1, 2), (2, 4)),
    },
}
OF_STORIES = {
    "without a teacher": {},
    **{f"T={t}": {"alpha": 0.0, "temperature": float(t)} for t in (1, 2, 4)},
    "reverse KL": {"alpha": 0.0, "beta": 1.0},
    "JSD": {"alpha": 0.0, "beta": 0.5},
    "stored top 8": {"alpha": 0.0, "stored": 8},
    "stored top 64": {"alpha": 0.0, "stored": 64},
    "on-policy JSD": {"alpha": 0.0, "beta": 0.5, "share": 0.5},
    "sequence-level": {"targets": "teacher"},
}
OF_TRANSLATION = {
    "without a teacher": {},
    **{f"T={t}": {"alpha": 0.5, "temperature": float(t)} for t in (1, 2, 4)},
    "sequence-level": {"targets": "teacher"},
}


def get_config(arg: str = "") -> ConfigDict:
    """The grid; `arg` is one family, or `tiny` for a few steps of encoder and decoder."""
    if arg not in ("", "tiny", *FAMILIES):
        raise ValueError(f"unknown argument {arg!r} of configs/distill.py; have {['', 'tiny', *FAMILIES]}")
    tiny = arg == "tiny"
    few = lambda methods: dict(list(methods.items())[:2]) if tiny else dict(methods)  # noqa: E731
    return ConfigDict(
        {
            "families": (arg,) if arg in FAMILIES else FAMILIES,
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "seeds": (0,) if tiny else (0, 1, 2),
            "encoder": {
                "model": "",  # a BERT folder; empty: the one of the extra `minilm`
                "without": (1, 3, 5),  # layers of the tuned teacher; with the others the student begins
                "rows": 32 if tiny else 3000,
                "unseen_rows": 16 if tiny else 1500,  # phrases behind them, to judge by
                "dev_rows": 16 if tiny else 0,  # sentences; 0: all
                "lengths": (64,) if tiny else (16, 32, 64),
                "batch_size": 16 if tiny else 32,
                "epochs": 1,
                "learning_rate": 5e-5,  # of the teacher
                "student_rate": 5e-5,
                "policy": "f32" if tiny else "bf16",
                "methods": few(OF_LABELS),
            },
            "decoder": {
                "model": "",  # as `experiments.loading` reads it; empty: stories260K of the data
                "student": {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "d_ff": 96},
                "stories": 32 if tiny else 2048,  # that the teacher writes at temperature 1
                "held_out": 8 if tiny else 256,
                "length": 16 if tiny else 128,
                "opening": 4 if tiny else 9,  # tokens that are given where a story is to be continued
                "answer": 8 if tiny else 48,  # tokens that the student writes on-policy
                "endings": 16 if tiny else 512,  # stories for sequence-level distillation
                "beams": 4,
                "group": 16 if tiny else 256,  # stories that are written at a time
                "batch_size": 8 if tiny else 32,
                "steps": 4 if tiny else 300,
                "student_rate": 5e-3,
                "methods": {n: OF_STORIES[n] for n in ("T=2", "on-policy JSD")} if tiny else dict(OF_STORIES),
            },
            "encoder_decoder": {
                "base": "" if tiny else "runs/base/base_encdec",  # a Hugging Face folder or hub id
                "start": "scratch",  # of the teacher: fresh weights or the "base"
                "without": ((1,), (1, 2)),  # layers of the teacher's encoder and decoder: half of all
                "rows": 3000,
                "dev_rows": 100,
                "length": 160,
                "targets_length": 240,
                "max_new_tokens": 80,
                "batch_size": 8,
                "answer_batch": 50,
                "epochs": 2,
                "learning_rate": 2e-3,
                "student_rate": 2e-3,
                "policy": "bf16",
                "methods": dict(OF_TRANSLATION),
            },
        }
    )
