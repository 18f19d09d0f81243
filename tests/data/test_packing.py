import numpy as np
import pytest

from research.data.packing import Example, empty_row, first_fit, pack, pack_row, pad_batch, shift, unpack, window


def example(n, start=1):
    return Example(np.arange(start, start + n), np.ones(n))


def check_row(row, pad_id=0):
    """What holds for every packed row, whoever made it."""
    segments, positions, mask = row["segment_ids"], row["positions"], row["loss_mask"]
    supervised = np.flatnonzero(mask)
    assert (segments[supervised] > 0).all()
    assert (supervised + 1 < len(segments)).all() or supervised.size == 0 or supervised[-1] == len(segments) - 1
    inner = supervised[supervised + 1 < len(segments)]
    # A target is the next token of the same document, never one of another.
    assert (segments[inner] == segments[inner + 1]).all()
    assert (row["targets"][inner] == row["tokens"][inner + 1]).all()
    assert (row["tokens"][segments == 0] == pad_id).all()
    for s in range(1, segments.max(initial=0) + 1):
        at = np.flatnonzero(segments == s)
        assert at.size and (np.diff(at) == 1).all() and positions[at].tolist() == list(range(at.size))


def test_first_fit_by_hand():
    plan = first_fit([5, 4, 3, 2, 1, 6], 8)
    assert [p.tolist() for p in plan] == [[0, 2], [1, 3, 4], [5]]
    assert [p.tolist() for p in first_fit([[3, 1], [3, 9], [2, 1]], [8, 10])] == [[0, 1], [2]]
    assert first_fit([], 4) == []


def test_first_fit_holds_all_once_and_never_overflows():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, 500)
    for open_rows in (1, 4, 256):
        plan = first_fit(lengths, 64, open_rows=open_rows)
        assert sorted(np.concatenate(plan).tolist()) == list(range(500))
        assert max(lengths[p].sum() for p in plan) <= 64
    # First fit needs at most 1.7 times the rows that the tokens alone would.
    assert len(first_fit(lengths, 64)) <= 1.7 * np.ceil(lengths.sum() / 64) + 1
    with pytest.raises(ValueError, match="2 of 3 examples are longer than a row of"):
        first_fit([3, 9, 12], 8)
    with pytest.raises(ValueError, match="2 lengths per example but 1 capacities"):
        first_fit([[1, 2]], 8)


def test_pack_round_trip_and_masks():
    rng = np.random.default_rng(1)
    examples = [Example(rng.integers(1, 99, n), rng.random(n) < 0.6) for n in rng.integers(1, 30, 40)]
    packed = pack(examples, 32, pad_id=0)
    rows = [{k: v[i] for k, v in packed.items()} for i in range(len(packed["tokens"]))]
    for row in rows:
        check_row(row)
    found = sorted(tuple(d.tolist()) for row in rows for d in unpack(row))
    assert found == sorted(tuple(e.tokens.tolist()) for e in examples)
    # Every wanted token is predicted exactly once, except a document's first.
    assert packed["loss_mask"].sum() == sum(e.loss_mask[1:].sum() for e in examples)
    assert packed["tokens"].dtype == packed["segment_ids"].dtype == np.int32
    assert packed["loss_mask"].dtype == np.float32
    assert pack([], 8) == {}


def test_pack_row_by_hand():
    row = pack_row([example(3, 10), Example(np.array([20, 21]), np.array([0, 1])), example(1, 30)], 8, pad_id=7)
    assert row["tokens"].tolist() == [10, 11, 12, 20, 21, 30, 7, 7]
    assert row["targets"].tolist() == [11, 12, 7, 21, 7, 7, 7, 7]
    assert row["loss_mask"].tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert row["segment_ids"].tolist() == [1, 1, 1, 2, 2, 3, 0, 0]
    assert row["positions"].tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="do not fit a row of 4"):
        pack_row([example(5)], 4)


def test_edge_lengths():
    one = pack_row([example(1)], 3)
    assert one["loss_mask"].sum() == 0 and one["segment_ids"].tolist() == [1, 0, 0]
    none = pack_row([example(0)], 2)
    assert none["segment_ids"].tolist() == [0, 0]
    assert shift(example(0))["tokens"].shape == (0,)
    assert empty_row(0)["tokens"].shape == (0,)


@pytest.mark.parametrize("length", [1, 3, 7, 8, 64])
def test_windows_lose_nothing(length):
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 20, 12)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    tokens = rng.integers(1, 99, lengths.sum())
    rows = [window(tokens, starts, b, length) for b in range(0, len(tokens), length)]
    for row in rows:
        check_row(row)
    assert np.concatenate([r["tokens"][r["segment_ids"] > 0] for r in rows]).tolist() == tokens.tolist()
    # All tokens but the first of each document are somebody's target, also across the cut between two rows.
    assert sum(r["loss_mask"].sum() for r in rows) == (lengths - 1).sum()


def test_window_by_hand():
    row = window(np.array([5, 6, 7, 8, 9]), np.array([0, 3]), 2, 2)
    assert row["tokens"].tolist() == [7, 8] and row["segment_ids"].tolist() == [1, 2]
    assert row["targets"].tolist() == [0, 9] and row["loss_mask"].tolist() == [0, 1]
    assert row["positions"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="after the last"):
        window(np.array([1]), np.array([0]), 1, 2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_batch(side):
    rows = [[1, 2, 3], [4], []]
    batch = pad_batch(rows, 5, side=side, pad_id=9)
    for i, row in enumerate(rows):
        real = batch["segment_ids"][i] == 1
        assert batch["tokens"][i][real].tolist() == row
        assert batch["positions"][i][real].tolist() == list(range(len(row)))
        assert (batch["tokens"][i][~real] == 9).all()
        edge = real[: len(row)] if side == "right" else real[5 - len(row) :]
        assert edge.all()
    assert pad_batch([[1], [2, 3]])["tokens"].shape == (2, 2)
    assert pad_batch([[]])["tokens"].shape == (1, 0)
    with pytest.raises(ValueError, match="does not fit length 2"):
        pad_batch(rows, 2)
    with pytest.raises(ValueError, match="unknown side 'top'"):
        pad_batch(rows, side="top")
