"""A folder of indexed documents: the store, the encoder that was trained for it, and how close a passage has to be."""

import json
from pathlib import Path

import numpy as np

from experiments.loading import encoder_folder
from research.apps.retrieval.embed import Embed
from research.apps.retrieval.retriever import Rerank, Retriever
from research.apps.retrieval.sqlite import SQLiteStore
from research.decoding.embedder import load_embedder
from research.evaluation.text_scorer import TextScorer

STORE, ENCODER, FACTS = "documents.sqlite", "encoder", "index.json"


def embedder(name: str, folder: Path) -> Embed:
    """The one that was trained for the folder's documents (""), that of the extra ("minilm"), or one of another folder.

    Raises:
      ValueError: the extra is not installed, or a folder holds no embedder.
    """
    if name:
        return load_embedder(encoder_folder("" if name == "minilm" else name))
    return load_embedder(folder / ENCODER)


def remember(folder: Path, least: float, name: str, kind: str) -> None:
    """What `retriever` has to know: the least closeness, the embedder as `embedder` takes it, the kind of retrieval."""
    told = {"least": least, "embedder": name, "kind": kind}
    (folder / FACTS).write_text(json.dumps(told) + "\n", encoding="utf-8")


def retriever(folder: Path, kind: str = "", rerank: str = "") -> Retriever:
    """Passages of the folder's documents, and none where nothing is close.

    kind: see `apps.retrieval.retriever.Retriever`; "": the one that was chosen when they were indexed.
    rerank: the folder of a cross-encoder that ranks the first of them anew; "": none.

    Raises:
      ValueError: the folder holds no index, or that of another embedder.
    """
    if not (folder / FACTS).is_file():
        raise ValueError(f"{folder} holds no index; make one with --config=configs/rag.py:index --workdir={folder}")
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    embed = embedder(facts["embedder"], folder)
    store = SQLiteStore(folder / STORE, embedder=embed.name, width=embed.width)
    kind = kind or facts["kind"]
    least = facts["least"] if kind != "bm25" else -np.inf
    return Retriever(store, embed, kind, least=least, rerank=cross_encoder(rerank) if rerank else None)


def cross_encoder(folder: str) -> Rerank:
    """A classifier of one label as what ranks passages anew."""
    scorer = TextScorer.pretrained(folder)
    return lambda question, passages: scorer([(question, passage) for passage in passages])
