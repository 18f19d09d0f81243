"""Train a student on a text and on what a teacher says of it: α · cross-entropy + (1 − α) · KL from the teacher.

    python -m experiments.train --config=configs/student.py --config.loss.teacher=runs/forkme/checkpoints \
        --config.tokenizer.path=runs/forkme/tokenizer --workdir=runs/student
    python -m experiments.train --config=configs/student.py:seq2seq --config.loss.teacher=path/to/t5 \
        --config.tokenizer.path=path/to/t5 --config.init_from=path/to/small_t5 --config.data.path=my_examples.jsonl ...

All that is not said here is configs/forkme.py or configs/seq2seq.py. The teacher is a Hugging Face folder, a hub id or
a run's checkpoints, of the same kind and vocabulary; it is frozen and computes in the student's precision. See
*Distilling the Knowledge in a Neural Network*, https://arxiv.org/abs/1503.02531.
"""

from ml_collections import ConfigDict

from configs import forkme, seq2seq

# beta: 0 the KL from the teacher, 1 the reverse one, between them Jensen-Shannon (research/objectives/distillation.py).
LOSS = {"name": "distill", "teacher": "", "alpha": 0.5, "temperature": 2.0, "beta": 0.0}


def get_config(arg: str = "") -> ConfigDict:
    """Half the width of forkme's decoder, `tiny` for seconds, or with `seq2seq` an encoder-decoder to begin with."""
    if arg not in ("", "tiny", "seq2seq"):
        raise ValueError(f"unknown argument {arg!r} of configs/student.py; have {['', 'tiny', 'seq2seq']}")
    config = seq2seq.get_config() if arg == "seq2seq" else forkme.get_config(arg)
    if not arg:
        config.model.update({"d_model": 64, "d_ff": 176})
    config.loss = ConfigDict(LOSS)
    return config
