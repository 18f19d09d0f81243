import threading

import numpy as np
import pytest

from research.data.corpus import TokenCorpus
from research.data.mixtures import Mixture, mixing_rates
from research.data.rows import MappedRows, PackedRows, PaddedRows, WindowRows
from research.data.sources import Batches, Prefetch, Stream, one_pass, stack

from .test_packing import check_row, example


class Numbers:
    """Rows that only name themselves and one random number."""

    def __init__(self, n, offset=0):
        self.n, self.offset = n, offset

    def __len__(self):
        return self.n

    def row(self, index, rng):
        return {"id": np.array(self.offset + index), "noise": rng.random(1), "loss_mask": np.ones(2, np.float32)}


def test_every_epoch_has_every_row_once_in_another_order():
    source = Batches(Stream(Numbers(10), seed=3), 4)
    seen = np.concatenate([source.batch(s)["id"] for s in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist() != list(range(10))
    assert Batches(Stream(Numbers(10), seed=3, shuffle=False), 5).batch(3)["id"].tolist() == [5, 6, 7, 8, 9]


def test_pure_in_seed_and_step():
    a, b = (Batches(Stream(Numbers(100), seed=1), 8) for _ in range(2))
    later = a.batch(7)
    for step in range(7):
        b.batch(step)
    assert all(np.array_equal(v, b.batch(7)[k]) for k, v in later.items())
    other = Batches(Stream(Numbers(100), seed=2), 8).batch(7)
    assert not np.array_equal(later["id"], other["id"]) and not np.array_equal(later["noise"], other["noise"])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_hosts_together_have_the_global_batch(count):
    sources = [Batches(Stream(Numbers(30), seed=0), 8, shard=(i, count)) for i in range(count)]
    for step in (0, 5):
        whole = Batches(Stream(Numbers(30), seed=0), 8).batch(step)
        parts = [source.batch(step) for source in sources]
        for name in ("id", "noise"):  # the same rows in the same order, and what is drawn for them
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
        positions = [p for source in sources for p in source.positions(step)]
        assert len(set(positions)) == 8, "two hosts read one row"
    assert all(source.state(3) == Batches(Stream(Numbers(30), seed=0), 8).state(3) for source in sources)


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_have_the_global_batch_of_a_mixture(count):
    def source(shard):
        streams = {"a": Stream(Numbers(30), seed=0), "b": Stream(Numbers(11), seed=1)}
        return Batches(Mixture(streams, {"a": 0.7, "b": 0.3}, seed=4), 8, shard=shard)

    whole = source((0, 1)).batch(6)
    parts = [source((i, count)).batch(6) for i in range(count)]
    for name in ("id", "noise", "part"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_state_goes_on_and_refuses_other_data():
    source = Batches(Stream(Numbers(30), seed=0), 8)
    state = source.state(12)
    assert source.restore(state) == 12
    with pytest.raises(ValueError, match="batch_size 8 then, 4 now"):
        Batches(Stream(Numbers(30), seed=0), 4).restore(state)
    with pytest.raises(ValueError, match="rows 30 then, 31 now"):
        Batches(Stream(Numbers(31), seed=0), 8).restore(state)


def test_one_pass_sees_each_row_once_and_pads_the_rest():
    batches = list(one_pass(Numbers(10), 4))
    real = np.concatenate([b["id"][b["loss_mask"].any(axis=1)] for b in batches])
    assert real.tolist() == list(range(10)) and {len(b["id"]) for b in batches} == {4}
    again = list(one_pass(Numbers(10), 4))
    assert all(np.array_equal(x["noise"], y["noise"]) for x, y in zip(batches, again, strict=True))
    halves = [list(one_pass(Numbers(10), 4, shard=(i, 2))) for i in range(2)]
    for first, second, both in zip(*halves, batches, strict=True):
        for name in both:
            np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), both[name])


def test_prefetch_gives_the_same_batches_and_jumps():
    plain = Batches(Stream(Numbers(30), seed=0), 4)
    before = threading.active_count()
    with Prefetch(plain, depth=3) as source:
        for step in [0, 1, 2, 9, 10, 0]:
            assert source.batch(step)["id"].tolist() == plain.batch(step)["id"].tolist()
        assert source.state(3) == plain.state(3) and source.restore(source.state(3)) == 3
        assert source.example_batch()["id"].shape == (4,)
    assert threading.active_count() == before


def test_prefetch_raises_where_the_batch_is_asked_for():
    class Broken(Numbers):
        def row(self, index, rng):
            if index == 5:
                raise ValueError("row 5 is broken")
            return super().row(index, rng)

    with Prefetch(Batches(Stream(Broken(8), shuffle=False), 2)) as source:
        source.batch(0)
        source.batch(1)
        with pytest.raises(ValueError, match="row 5 is broken"):
            source.batch(2)
        assert source.batch(3)["id"].tolist() == [6, 7]


def test_errors():
    with pytest.raises(ValueError, match="holds no rows"):
        Stream(Numbers(0))
    with pytest.raises(ValueError, match="does not divide over 3 hosts"):
        Batches(Stream(Numbers(5)), 4, shard=(0, 3))
    with pytest.raises(ValueError, match="shard 2 of 2"):
        Batches(Stream(Numbers(5)), 4, shard=(2, 2))
    with pytest.raises(ValueError, match="different kinds"):
        stack([{"a": np.ones(2)}, {"b": np.ones(2)}])
    with pytest.raises(ValueError, match="different shapes"):
        stack([{"a": np.ones(2)}, {"a": np.ones(3)}])


def test_window_rows_cover_all_shards():
    rng = np.random.default_rng(0)
    parts = [TokenCorpus.from_documents([rng.integers(1, 50, n) for n in sizes]) for sizes in ([5, 9, 1], [20])]
    corpus = TokenCorpus([s for p in parts for s in p.shards])
    rows = WindowRows(corpus, 8)
    assert len(rows) == 2 + 3
    found = [rows.row(i) for i in range(len(rows))]
    for row in found:
        check_row(row)
    tokens = np.concatenate([r["tokens"][r["segment_ids"] > 0] for r in found])
    assert tokens.tolist() == np.concatenate([s.tokens for s in corpus.shards]).tolist()
    assert [corpus.document(i).size for i in range(4)] == corpus.lengths.tolist() == [5, 9, 1, 20]
    with pytest.raises(IndexError):
        rows.row(5)
    with pytest.raises(IndexError):
        corpus.document(4)
    assert len(WindowRows(TokenCorpus.from_documents([[], []]), 8)) == 0


def test_packed_padded_and_mapped_rows():
    examples = [example(n) for n in (3, 5, 2, 4)]
    packed = PackedRows(examples, 8)
    assert len(packed) == 2
    padded = PaddedRows(examples, 8)
    assert len(padded) == 4 and padded.row(1)["segment_ids"].sum() == 5
    with pytest.raises(ValueError, match="truncate it first"):
        PaddedRows(examples, 4)
    mapped = MappedRows(padded, lambda row, rng: {**row, "tokens": row["tokens"] * 0})
    assert len(mapped) == 4 and mapped.row(0, np.random.default_rng(0))["tokens"].sum() == 0


def test_mixing_rates():
    sizes = {"a": 100, "b": 900}
    assert mixing_rates(sizes) == {"a": 0.1, "b": 0.9}
    assert mixing_rates(sizes, cap=100) == {"a": 0.5, "b": 0.5}
    tempered = mixing_rates(sizes, temperature=2)
    assert tempered["a"] == pytest.approx(0.25)
    for bad in ({"sizes": {}}, {"sizes": {"a": 0}}, {"sizes": sizes, "cap": 0}, {"sizes": sizes, "temperature": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            mixing_rates(**bad)


def test_mixture_keeps_rates_and_each_source_order():
    streams = {"a": Stream(Numbers(50), seed=1), "b": Stream(Numbers(7, 1000), seed=2)}
    mixture = Mixture(streams, {"a": 3, "b": 1}, seed=5)
    located = [mixture.locate(p) for p in range(3 * 4096)]
    names = np.array([name for name, _ in located])
    assert (names == "b").sum() == 3 * 1024 and mixture.counts == {"a": 3072, "b": 1024}
    for name in "ab":
        positions = sorted(p for n, p in located if n == name)
        assert positions == list(range(len(positions)))  # nothing skipped, nothing twice
    assert 0.1 < (names[:400] == "b").mean() < 0.4
    source = Batches(mixture, 6)
    assert source.batch(3)["id"].tolist() == Batches(mixture, 6).batch(3)["id"].tolist()
    assert len(mixture) == -(-50 * 4096 // 3072)
    assert source.restore(source.state(2)) == 2


def test_mixture_gives_the_smallest_source_a_place():
    streams = {str(i): Stream(Numbers(3)) for i in range(3)}
    mixture = Mixture(streams, {"0": 1e-9, "1": 1, "2": 1e-9})
    assert mixture.counts == {"0": 1, "1": 4094, "2": 1}
    with pytest.raises(ValueError, match="rates are for"):
        Mixture(streams, {"0": 1})
    with pytest.raises(ValueError, match="must be positive"):
        Mixture(streams, {"0": 0, "1": 1, "2": 1})
