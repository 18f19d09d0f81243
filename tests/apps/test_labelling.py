"""People's rankings: hidden order, ties, undo, agreement on the same votes, files that training reads."""

import json

import pytest

from research.apps.labelling import Board
from research.data.preference import as_preference
from research.data.rankings import read_rankings

SAMPLES = [
    {"id": "a", "prompt": "Say hello.", "completions": ["hello", "go away", "hi"]},
    {"id": "b", "prompt": [{"role": "user", "content": "2 + 2?"}], "completions": ["4", "5"]},
]


def write(folder, rows=SAMPLES):
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rank_by(board, labeller, best):
    """Ranks the next sample as the order `best` of its texts says; texts in one set are a tie."""
    sample = board.next(labeller)["sample"]
    places = {text: i + 1 for i, group in enumerate(best) for text in group}
    board.rank(labeller, sample["id"], [places.get(text) for text in sample["completions"]])


def test_ranks_of_the_shown_order_are_those_of_the_texts(tmp_path):
    board = Board(write(tmp_path))
    orders = set()
    for who in ("ann", "bob", "cy", "dan", "eve"):
        orders.add(tuple(board.next(who)["sample"]["completions"]))
        assert board.next(who) == board.next(who) | {"done": 0, "of": 2}
        rank_by(board, who, [{"hello", "hi"}, {"go away"}])
    assert len(orders) > 1  # each labeller has an order of his own
    for who in board.labellers():
        (ranking,) = read_rankings(tmp_path / "rankings" / f"{who}.jsonl", list(board.samples.values()))
        assert ranking == ("a", who, (1, 2, 1))
        assert board.next(who)["sample"]["id"] == "b"
    assert Board(tmp_path).labellers() == ["ann", "bob", "cy", "dan", "eve"]  # nothing is in memory alone


def test_undo_conflicts_and_export(tmp_path):
    board = Board(write(tmp_path))
    rank_by(board, "ann", [{"hello"}, {"hi"}, {"go away"}])
    rank_by(board, "ann", [{"4"}, {"5"}])
    rank_by(board, "bob", [{"hi"}, {"hello"}])
    assert [(c["id"], c["completions"]) for c in board.conflicts()] == [("a", ["hello", "hi"])]
    pairs = [as_preference(json.loads(line)) for line in board.export("majority").splitlines()]
    assert {(p.chosen, p.rejected, p.preferred) for p in pairs} == {
        ("hello", "go away", 1.0), ("hello", "hi", 0.5), ("hi", "go away", 1.0), ("4", "5", 1.0),
    }  # fmt: skip
    assert len(board.export("drop").splitlines()) == 3
    assert board.undo("ann") == "b" and board.next("ann")["sample"]["id"] == "b"
    assert board.undo("bob") == "a" and board.undo("bob") is None
    assert board.next("bob")["done"] == 0 and board.conflicts() == []


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("c", [1, 2], "no sample has the id 'c'"),
        ("a", [1, 2], "2 ranks for the 3 completions"),
        ("a", [1, "first", 2], "must be 3 numbers or nulls"),
        ("a", [1, None, None], "one rank only"),
    ],
)
def test_ranks_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, name, ranks, message):
    board = Board(write(tmp_path))
    with pytest.raises(ValueError, match=message):
        board.rank("ann", name, ranks)
    assert board.labellers() == []


def test_a_sample_is_ranked_once(tmp_path):
    board = Board(write(tmp_path))
    board.rank("ann", "b", [1, 2])
    with pytest.raises(ValueError, match="has ranked sample 'b' already; undo it first"):
        board.rank("ann", "b", [2, 1])


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "x" * 65])
def test_a_name_is_no_path(tmp_path, name):
    with pytest.raises(ValueError, match="a labeller's name"):
        Board(write(tmp_path)).next(name)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no|empty|0 samples"),
        ([SAMPLES[0], SAMPLES[0]], "2 samples of which 1"),
        ([{"id": "a", "prompt": "x"}], "'completions' is missing"),
        ([{"id": "a", "prompt": "x", "completions": ["y", "y"]}], "no two of them equal"),
    ],
)
def test_samples_that_cannot_be_ranked_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        Board(write(tmp_path, rows))
