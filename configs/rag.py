"""Retrieval-augmented generation: an index of documents, questions to it, and how good retrieval and answers are.

    python -m experiments.rag --config=configs/rag.py:index                  # a store and an encoder for it, in minutes
    python -m experiments.rag --config=configs/rag.py:ask --config.question="What does shutil.which do?"
    python -m experiments.rag --config=configs/rag.py:retrievers           # Cranfield and Python, 3 seeds: half an hour
    python -m experiments.rag --config=configs/rag.py:answers                # questions with known answers
    python -m experiments.rag --config=configs/rag.py:tiny --workdir=runs/rag_tiny   # seconds: to see that it runs

See *Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks*, Lewis et al., https://arxiv.org/abs/2005.11401;
small encoders learn by *Representation Learning with Contrastive Predictive Coding*, https://arxiv.org/abs/1807.03748,
from documents alone.
"""

from ml_collections import ConfigDict

TASKS = ("index", "ask", "retrievers", "answers")


def get_config(arg: str = "index") -> ConfigDict:
    """The settings; `arg` says what to do, `tiny` is a small form of `retrievers`, or of what is set as `task`."""
    if arg not in (*TASKS, "tiny"):
        raise ValueError(f"unknown argument {arg!r} of configs/rag.py; have {[*TASKS, 'tiny']}")
    config = ConfigDict(
        {
            "task": "retrievers" if arg == "tiny" else arg,
            "documents": "",  # a folder or file; empty: the documentation that comes with Python
            "limit": 0,  # about so many documents, from all places; 0: all
            # "": a small one is trained on the documents and kept; "minilm": the extra's; else a folder.
            "embedder": "",
            "chunks": {"by": "headings", "size": 128, "overlap": 16},
            "kind": "hybrid",  # or "dense", "bm25"
            "rerank": "",  # a folder or hub id of a cross-encoder that ranks what was found anew; empty: none does
            "k": 4,
            # What is less close than this share of what the documents' own headings find is "not in the documents".
            "refuse": 0.05,
            "question": "",
            # "": the passages alone; a folder, a run or a file; or an address, with the name it knows the model by.
            "model": "",
            "tokenizer": "",
            "name": "",
            "key_variable": "",
            "chat": False,
            "answer_tokens": 64,
            "questions": 200,
            "judge": {"url": "", "model": "", "key_variable": ""},
            "seed": 0,
            # Of `retrievers`:
            "collections": ("cranfield", "python"),
            "measures": ("ndcg@10", "recall@10", "recall@100", "mrr"),
            "encoder": "",  # a folder of sentence-transformers; empty: the extra minilm
            "data": "",  # the folder of the data sets; empty: LIFECYCLE_DATA, else ../shared/data
            "held_out": 0.1,
            "depth": 200,
            "seeds": (0, 1, 2),
            "small": small(),
        }
    )
    if arg == "tiny":
        config.update({"limit": 6, "questions": 4, "answer_tokens": 8, "depth": 20, "seeds": (0,), "held_out": 0.02})
        config.collections = ("python",)
        config.small.update({"vocab_size": 300, "lengths": (8, 16), "batch_size": 8, "steps": 3, "policy": "f32"})
        config.small.model.update({"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32})
    return config


def small() -> dict:
    """An encoder from scratch: rows of queries and of passages, pairs in a batch."""
    dropout = {"embed_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
    return {
        "vocab_size": 8192,
        "model": {"d_model": 192, "n_layers": 2, "n_heads": 3, "d_ff": 768, **dropout},
        "policy": "bf16",
        "lengths": (32, 128),
        "batch_size": 64,
        "steps": 600,
        "learning_rate": 1e-3,
        "temperature": 0.05,
    }
