"""Stage 23: questions about functions that the model never read, answered from passages, with citations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from experiments import indexed, reader, small_encoder
from experiments.answering import rows_of
from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from experiments.trial import linear_decay, train
from research.apps.protocol import Options
from research.apps.retrieval import python_docs
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Chunk, Document
from research.apps.retrieval.files import Unread
from research.apps.retrieval.ingest import ingest
from research.apps.retrieval.retriever import KINDS, Retriever
from research.apps.retrieval.sqlite import SQLiteStore
from research.core.types import Params
from research.data.sources import Batches, Stream
from research.decoding.embedder import Embedder
from research.decoding.local import LocalModel
from research.interop import save_pretrained
from research.models import Model
from research.recipes.pretrain import language_model_loss

SHOWN = 6
INSTRUCTION = "Answer from the passages, and cite."  # short: it is learned, and the window is for passages


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """How often each way to retrieve finds the answer, and {way to answer: {measure: interval}}, with some answers."""
    settings = config["rag"]
    hidden = {task["function"] for task in read_lines(inputs["documents"].folder / "test_tasks.jsonl")}
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    base = learning.load_weights(inputs["pretrain"], model)
    count = lambda text: len(pieces.encode(text))  # noqa: E731
    cut = Chunker(size=settings["passage"], overlap=0, count=count, tokenizer=pieces.fingerprint[:12])
    modules = [short_headings(one) for one in python_docs.documents() if one.source.startswith("docs:")]
    # Those first about which something can be asked that the model never read.
    asked_of = tuple(f"{name.rsplit('.', 1)[0]}." for name in hidden)
    chosen = sorted(modules, key=lambda one: not any(name.startswith(one.source[5:] + ".") for name in asked_of))
    chosen = chosen[: settings["modules"]]
    chunks = [chunk for one in chosen for chunk in cut(one.read())]
    embed, costs = encoder(config, model, base, pieces, chunks, hidden)
    index = folder / "documents"
    embed.save(index / indexed.ENCODER)
    store = SQLiteStore(index / indexed.STORE, embedder=embed.name, width=embed.width)
    ingest(chosen, store, embed, cut)
    find = {kind: Retriever(store, embed, kind) for kind in KINDS}
    asked = reader.questions(chunks, settings["seed"])
    known = [question for question in asked if question.function not in hidden][: settings["known"]]
    asked = [question for question in asked if question.function in hidden][: settings["questions"]]
    tuned = tune(config, model, base, pieces, known, find[settings["kind"]])
    local = LocalModel(model, tuned, pieces, name="the job's model")
    k, options = settings["k"], Options(max_new_tokens=settings["new_tokens"], stop=("\n",))
    ways = {
        "from passages": reader.by_model(find[settings["kind"]], k, local, options, instruction=INSTRUCTION),
        "from memory": reader.by_model(None, k, local, options, instruction=INSTRUCTION),
        "first line of the best passage": reader.by_first_line(find[settings["kind"]], k),
    }
    given = {name: way([question.text for question in asked]) for name, way in ways.items()}
    share = {kind: found(retriever, asked, k) for kind, retriever in find.items()}
    store.close()
    indexed.remember(index, -1.0, "", settings["kind"])  # of what is close the job has no notion: all is shown
    save_pretrained(folder / "reader", model.config, tuned, tokenizer=pieces)
    return {
        "passages": len(chunks),
        "encoder": costs,
        "found": share,
        "answers": {name: reader.scored(asked, answers) for name, answers in given.items()},
        "examples": [
            {"question": question.text, "right": question.answer, "answer": answer.text}
            | {"cited": [hit.chunk.text for hit in answer.cited]}
            for question, answer in list(zip(asked, given["from passages"], strict=True))[:SHOWN]
        ],
    }


def short_headings(unread: Unread) -> Unread:
    """A module's documentation with headings that leave the parameters to the text, so that passages fit the window."""

    def read() -> Document:
        document = unread.read()
        names = (heading._replace(text=heading.text.partition("(")[0]) for heading in document.headings)
        return replace(document, headings=tuple(names))

    return unread._replace(read=read)


def encoder(
    config: Mapping[str, Any], model: Model, base: Params, pieces: Any, chunks: Sequence[Chunk], hidden: set[str]
) -> tuple[Embedder, dict[str, Any]]:
    """The pre-trained decoder as an embedder that learned which heading and which sentence belongs to which text."""
    settings = config["rag"]["encoder"]
    read = [chunk for chunk in chunks if chunk.heading not in hidden]
    titled = [small_encoder.Titled(chunk.heading or chunk.title, chunk.text) for chunk in read]
    embed = Embedder(model, base, pieces, max(settings["lengths"]))
    made, costs = small_encoder.tune(embed, settings, titled, config["rag"]["seed"])
    return made, {name: costs[name] for name in ("steps", "seconds", "loss")}


def tune(
    config: Mapping[str, Any],
    model: Model,
    base: Params,
    pieces: Any,
    known: Sequence[reader.Question],
    retriever: Retriever,
) -> Params:
    """The pre-trained decoder, tuned to answer known questions from passages and to cite them."""
    settings = config["rag"]["reader"]
    local = LocalModel(model, base, pieces)
    k, answer_tokens = config["rag"]["k"], config["rag"]["new_tokens"]
    made = reader.examples(known, retriever, local, k, answer_tokens, INSTRUCTION)
    rows = rows_of(model, made, pieces, {"length": model.config.max_length})
    source = Batches(Stream(rows, config["rag"]["seed"]), settings["batch_size"])
    batches = [source.batch(i) for i in range(settings["steps"])]
    rule = linear_decay(settings["learning_rate"], len(batches), clip=1.0)
    key = jax.random.key(config["rag"]["seed"])
    return train(language_model_loss(model), base, rule, batches, key, policy=model.policy)[0]


def found(retriever: Retriever, asked: Sequence[reader.Question], k: int) -> float:
    """The share of questions with the answer in one of the first k passages."""
    hits = ((question, retriever(question.text, k)) for question in asked)
    return sum(any(question.supported_by(hit.chunk) for hit in some) for question, some in hits) / len(asked)


def rows(result: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows of the table of answers."""
    measures = list(next(iter(result["answers"].values())))
    told = ", ".join(f"{kind} {share:.2f}" for kind, share in result["found"].items())
    title = f"Answers from {result['passages']} passages; found by {told}"
    body = [[name, *(f"{scores[m][1]:.2f}" for m in measures)] for name, scores in result["answers"].items()]
    return title, ["", *measures], body


STAGE = Stage(
    name="rag",
    title="Answers from the documentation, with citations",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "rag"),
    makes=("documents", "reader"),
)
