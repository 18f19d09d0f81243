"""The RAG experiment at its smallest: indexed, asked, indexed again; what it measures, on answers that are known."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from configs.rag import get_config
from experiments import rag, reader, retrievers, small_encoder
from experiments.indexed import remember
from research.apps.retrieval.document import Chunk
from research.apps.retrieval.prompt import NOT_FOUND, Answer
from research.apps.retrieval.store import Hit

DOCUMENTS = {
    "cats.md": "# Cats\n\nCats sleep through most of the day. They hunt at night. They purr when they are content.\n",
    "tea.md": "# Tea\n\nTea is made from leaves. Green tea is not fermented. Black tea is fermented for longer.\n",
    "wool.md": "# Wool\n\nWool comes from sheep. It is spun into yarn. Yarn is knitted or woven into cloth.\n",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text)
    config = get_config("tiny")
    config.documents, config.limit, config.small.batch_size = str(folder), 0, 2
    config.chunks.size, config.chunks.overlap = 12, 0
    return folder, tmp_path_factory.mktemp("work"), config


def did(place, task, **settings):
    """What a task prints."""
    _, workdir, config = place
    console = Console(file=io.StringIO(), width=200)
    rag.work({**config.to_dict(), "task": task, **settings}, workdir, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def indexed(place):
    """What is told of the first time."""
    return did(place, "index")


def test_documents_are_indexed_once_and_answer_questions(place, indexed):
    folder, workdir, _ = place
    assert "3 documents added, 0 changed, 0 unchanged" in indexed
    encoder = (workdir / "encoder" / "model.safetensors").read_bytes()
    (folder / "tea.md").write_text(DOCUMENTS["tea.md"] + "\nIt is drunk from cups.\n")
    assert "0 documents added, 1 changed, 2 unchanged" in did(place, "index")
    assert (workdir / "encoder" / "model.safetensors").read_bytes() == encoder
    shown = did(place, "ask", question="What is wool spun into?", kind="bm25", k=1)
    assert "wool.md" in shown and "spun into yarn" in shown
    remember(workdir, 1.1, "", "hybrid")
    assert did(place, "ask", question="What is wool spun into?").strip() == NOT_FOUND


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        ("ask", {}, "nothing was asked: give --config.question"),
        ("answers", {}, "the store holds no docstring"),
        ("anwers", {}, "unknown task 'anwers', did you mean 'answers'"),
        ("retrievers", {"collections": ("cranfeld",)}, "unknown collection 'cranfeld', did you mean 'cranfield'"),
    ],
)
def test_refusals(place, indexed, task, settings, told):
    with pytest.raises(ValueError, match=told):
        did(place, task, **settings)


def test_a_question_before_the_index_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match="holds no index; make one with"):
        did((place[0], tmp_path, place[2]), "ask", question="Who?")


def test_ways_to_find_texts_are_measured_and_remembered(tmp_path, monkeypatch):
    pairs = [small_encoder.Titled(text.split("\n")[0][2:], text.split("\n\n")[1]) for text in DOCUMENTS.values()]
    texts = {pair.title: pair.text for pair in pairs}
    config = get_config("tiny")
    config.collections, config.small.batch_size, config.small.vocab_size = ("small",), 2, 200
    judged = retrievers.Collection(texts, {t: t.lower() for t in texts}, {t: {t: 1} for t in texts}, pairs)
    monkeypatch.setitem(retrievers.COLLECTIONS, "small", lambda config: judged)
    letters = lambda texts: np.array([[text.lower().count(x) for x in "aeiou"] for text in texts], np.float32)  # noqa: E731
    monkeypatch.setattr(retrievers, "load_embedder", lambda folder, policy: letters)
    config.encoder = "another"
    console = Console(file=io.StringIO(), width=200)
    retrievers.work(config.to_dict(), tmp_path, console)
    rows = {line.split("  ")[0].strip(): line for line in console.file.getvalue().splitlines()}
    assert rows["BM25"].count("1.000 [1.000, 1.000]") == 2 * 2  # all four measures, each title being a word of its text
    assert (tmp_path / "retrievers.png").is_file() and (tmp_path / "small" / "modules.json").is_file()
    ranked = json.loads((tmp_path / "small-trained_here-0.json").read_text())["rankings"]
    assert all(sorted(ranking) == sorted(texts) for ranking in ranked.values())


def test_pairs_of_python_are_held_out_by_their_text():
    train, held_out = small_encoder.python_pairs(0.2)
    assert 0.15 < len(held_out) / (len(train) + len(held_out)) < 0.25
    assert not {pair.text for pair in train} & {pair.text for pair in held_out}


def test_drawn_sentences_are_of_the_text_and_mostly_not_in_the_passage():
    pair = small_encoder.Titled("T", "One two three four. Five six seven eight. Nine ten eleven twelve.")
    made = [small_encoder.drawn(pair, np.random.default_rng(seed)) for seed in range(300)]
    titles = [passage for query, passage in made if query == "T"]
    others = [(query, passage) for query, passage in made if query != "T"]
    assert 0.4 < len(titles) / 300 < 0.6 and set(titles) == {pair.text}
    assert all(query in pair.text and passage.startswith("T\n") for query, passage in others)
    assert 0.03 < np.mean([query in passage for query, passage in others]) < 0.2


def test_scores_of_answers_are_those_counted_by_hand():
    chunks = [Chunk("f(x)\n    Double a number.", "m", 0, 20, heading="f(x)"), Chunk("g()\n    Stop.", "m", 21, 30)]
    hits = tuple(Hit(chunk, 1.0) for chunk in chunks)
    asked = [reader.Question("What does f do?", "Double a number.", "f")] * 3
    given = [
        Answer("Double a number. [1]", hits[:1], (), hits),
        Answer("Stop the number [1, 2, 7]", hits, (7,), hits),
        Answer(NOT_FOUND),
    ]
    found = {name: interval.mean for name, interval in reader.scored(asked, given).items()}
    # Without the articles two words are right; the second answer shares one of two with them.
    wanted = {"exact match": 1 / 3, "f1": (1 + 0.5) / 3, "found": 2 / 3, "citation precision": (1 + 1 / 3) / 3}
    wanted |= {"faithful words": (1 + 1) / 3, "answered": 2 / 3}
    assert found == pytest.approx(wanted)
    assert reader.refused(given) == pytest.approx(1 / 3)
    line = reader.first_line(hits)
    assert (line.text, line.cited) == ("Double a number. [1]", hits[:1])
    asks = []
    judge = lambda prompts: asks.extend(prompts) or ["It is. [[9]]", "[[1]]", "[[2]]"]  # noqa: E731
    assert reader.faithfulness(judge, asked, given).mean == 4
    assert "[1] f(x)\n    Double a number." in asks[0] and "Answer: Double a number. [1]" in asks[0]
