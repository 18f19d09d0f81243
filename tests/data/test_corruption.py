import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.corpus import TokenCorpus
from research.data.corruption import (
    CorruptedPairRows,
    Denoising,
    MaskedLM,
    SpanCorruption,
    masked_lm,
    pack_pairs,
    prefix_lm,
    prefix_row,
    prompt_as_prefix,
)
from research.data.denoising import delete_tokens, infill, mask_tokens, permute_sentences, sentence_end_table
from research.data.packing import Example, pack_row
from research.data.rows import MappedRows, WindowRows
from research.data.spans import t5_sentinels
from research.data.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer(extra=["<mask>", "<extra_id_0>", "<extra_id_1>"])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_masked_lm_shares():
    n = 20_000
    tokens = rng().integers(10, 100, n)
    maskable = np.ones(n, bool)
    maskable[:5000] = False
    out = masked_lm(tokens, maskable, rng(1), mask_id=5, replacements=np.arange(10, 100))
    chosen = out["loss_mask"] > 0
    assert chosen.sum() == 2250 and not chosen[:5000].any()
    assert (out["targets"] == tokens).all() and (out["tokens"][~chosen] == tokens[~chosen]).all()
    masked = (out["tokens"][chosen] == 5).mean()
    kept = (out["tokens"][chosen] == tokens[chosen]).mean()
    assert abs(masked - 0.8) < 0.03 and abs(kept - 0.1) < 0.03


def test_masked_lm_edges():
    tokens = np.arange(10, 14)
    none = masked_lm(tokens, np.zeros(4, bool), rng(), mask_id=5, replacements=tokens)
    assert none["loss_mask"].sum() == 0 and (none["tokens"] == tokens).all()
    one = masked_lm(tokens, np.array([0, 1, 0, 0], bool), rng(), mask_id=5, replacements=tokens)
    assert one["loss_mask"].tolist() == [0, 1, 0, 0]


def test_whole_words_are_masked_whole():
    starts = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 0], bool)
    words = np.cumsum(starts)
    for seed in range(30):
        out = masked_lm(
            np.arange(20, 30),
            np.ones(10, bool),
            rng(seed),
            mask_id=5,
            replacements=np.arange(20, 30),
            rate=0.3,
            word_starts=starts,
        )
        chosen = out["loss_mask"] > 0
        assert 1 <= chosen.sum() <= 4
        for word in set(words[chosen]):
            assert chosen[words == word].all()


def test_masked_lm_rows_leave_specials_and_padding(tokenizer, data_dir):
    ids = [tokenizer.encode(t, eos=True) for t in ("some words here", "and a few more of them")]
    row = pack_row([Example(np.array(i), np.ones(len(i))) for i in ids], 64)
    for whole in (False, True):
        for seed in range(20):
            out = MaskedLM(tokenizer, whole_word=whole)(row, rng(seed))
            chosen = out["loss_mask"] > 0
            assert chosen.any() and not chosen[row["segment_ids"] == 0].any()
            assert not chosen[row["tokens"] == tokenizer.eos_id].any()
            changed = out["tokens"][chosen]
            assert not set(changed[changed != tokenizer.mask_id].tolist()) & tokenizer.special_ids
    bert = load_tokenizer(data_dir / "tokenizers" / "bert_base_uncased_vocab.txt")
    ids = np.array(bert.encode("unaffable naivete of embeddings", bos=True, eos=True))
    out = MaskedLM(bert, rate=0.9)(pack_row([Example(ids, np.ones(len(ids)))], 16), rng())
    assert out["loss_mask"][0] == 0 and out["loss_mask"].sum() == round(0.9 * (len(ids) - 2))
    with pytest.raises(ValueError, match="mask token"):
        MaskedLM(ByteTokenizer())


# T5's own prefix-LM test values (oracles.md, section 4).
def test_prefix_row_goldens():
    row = prefix_row([9, 1, 2, 3, 4, 5, 6, 7], 3, 8, start_id=0)
    assert row["tokens"].tolist() == [0, 9, 1, 2, 3, 4, 5, 6]
    assert row["targets"].tolist() == [9, 1, 2, 3, 4, 5, 6, 7]
    assert row["loss_mask"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    # "causal_attention 1 1 1 1 0 0 0 0": the start token and the prefix see each other.
    assert row["horizon"].tolist() == [3, 3, 3, 3, 4, 5, 6, 7]
    padded = prefix_row([8, 9, 10, 11, 12, 13], 3, 8, start_id=0)
    assert padded["loss_mask"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert padded["targets"].tolist() == [8, 9, 10, 11, 12, 13, 0, 0]
    plain = prefix_row([5, 6, 7, 8], 2, 5)
    assert plain["tokens"].tolist() == [5, 6, 7, 8, 0] and plain["targets"].tolist() == [6, 7, 8, 0, 0]
    assert plain["loss_mask"].tolist() == [0, 1, 1, 0, 0] and plain["horizon"].tolist() == [1, 1, 2, 3, 0]


def test_prefix_lm_on_packed_rows():
    row = pack_row([Example(np.arange(1, n + 1), np.ones(n)) for n in (6, 1, 5)], 16)
    for seed in range(20):
        out = prefix_lm(row, rng(seed))
        for s, n in ((1, 6), (2, 1), (3, 5)):
            at = np.flatnonzero(row["segment_ids"] == s)
            horizon, mask = out["horizon"][at], out["loss_mask"][at]
            prefix = horizon[0] + 1
            assert 1 <= prefix <= max(n - 1, 1)
            assert horizon.tolist() == [max(p, prefix - 1) for p in range(n)]
            assert mask.tolist() == [float(prefix <= p + 1 < n) for p in range(n)]
        assert out["loss_mask"][row["segment_ids"] == 0].sum() == 0


def test_prompt_becomes_the_prefix():
    row = pack_row([Example(np.arange(1, 6), np.array([0, 0, 0, 1, 1])), Example(np.arange(7, 9), np.zeros(2))], 8)
    out = prompt_as_prefix(row)
    assert out["horizon"].tolist() == [2, 2, 2, 3, 4, 1, 1, 0]
    assert out["loss_mask"].tolist() == row["loss_mask"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_infilling_counts():
    tokens = np.arange(100, 300)
    for seed in range(30):
        out = infill(tokens, 0.3, 5, rng(seed))
        kept = out[out != 5]
        assert len(kept) == 140 and (np.diff(kept) > 0).all() and len(out) <= 200
        spans = 200 - 140
        assert 5 <= (out == 5).sum() <= spans
    lengths = [(infill(tokens, 0.3, 5, rng(s)) == 5).sum() for s in range(200)]
    # Poisson(3) spans: 60 tokens in about 60 / 3 draws, a twentieth of them empty.
    assert 19 < np.mean(lengths) < 23
    for n in range(1, 12):
        for rate in (0.0, 0.3, 0.9, 1.0):
            out = infill(np.arange(10, 10 + n), rate, 5, rng(n))
            assert len(out) <= n and (out != 5).sum() == n - round(rate * n)
    assert infill(np.zeros(0, int), 0.3, 5, rng()).size == 0


def test_token_masking_deletion_and_sentences(tokenizer):
    tokens = np.arange(100, 140)
    masked = mask_tokens(tokens, 0.25, 5, rng())
    assert (masked == 5).sum() == 10 and (masked[masked != 5] == tokens[masked != 5]).all()
    deleted = delete_tokens(tokens, 0.25, rng())
    assert len(deleted) == 30 and set(deleted) < set(tokens)
    table = sentence_end_table(tokenizer)
    text = "One here. Two! Three? and a rest"
    ids = np.array(tokenizer.encode(text))
    seen = {tokenizer.decode(permute_sentences(ids, table, rng(s))) for s in range(300)}
    parts = ["One here.", " Two!", " Three?", " and a rest"]
    assert len(seen) == 24 and all(all(p in s for p in parts) and len(s) == len(text) for s in seen)
    assert permute_sentences(ids[:3], table, rng()).tolist() == ids[:3].tolist()


def test_denoising_targets_are_the_text(tokenizer):
    corrupt = Denoising(tokenizer, mask_rate=0.1, delete_rate=0.1)
    ids = np.array(tokenizer.encode("A first sentence. And a second one, a little longer."), np.int32)
    inputs, targets = corrupt(ids, rng(4))
    assert targets.tolist() == [*ids.tolist(), tokenizer.eos_id]
    assert inputs[-1] == tokenizer.eos_id and tokenizer.mask_id in inputs and len(inputs) <= len(targets)
    with pytest.raises(ValueError, match="mask token"):
        Denoising(ByteTokenizer())


def test_pack_pairs_by_hand():
    pairs = [(np.array([11, 12, 13]), np.array([21, 1])), (np.array([14]), np.array([22, 23, 1]))]
    row = pack_pairs(pairs, 6, 7, decoder_start_id=9)
    assert row["inputs"].tolist() == [11, 12, 13, 14, 0, 0]
    assert row["input_segment_ids"].tolist() == [1, 1, 1, 2, 0, 0]
    assert row["input_positions"].tolist() == [0, 1, 2, 0, 0, 0]
    assert row["tokens"].tolist() == [9, 21, 9, 22, 23, 0, 0]
    assert row["targets"].tolist() == [21, 1, 22, 23, 1, 0, 0]
    assert row["loss_mask"].tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert row["segment_ids"].tolist() == [1, 1, 2, 2, 2, 0, 0]
    assert row["positions"].tolist() == [0, 1, 0, 1, 2, 0, 0]
    with pytest.raises(ValueError, match="does not fit"):
        pack_pairs(pairs, 3, 7, decoder_start_id=9)


@pytest.mark.parametrize("objective", ["span", "denoise"])
def test_corrupted_rows_hold_every_token(tokenizer, objective):
    documents = [rng(i).integers(10, 200, n) for i, n in enumerate([1, 2, 30, 75, 8, 200])]
    corpus = TokenCorpus.from_documents(documents)
    if objective == "span":
        corruption = SpanCorruption(t5_sentinels(1000), eos_id=1)
    else:
        corruption = Denoising(tokenizer, permute=False)
    rows = CorruptedPairRows(corpus, corruption, 64, 64, piece_length=50, decoder_start_id=0)
    assert len(rows) > 3
    total = differing = 0
    for i in range(len(rows)):
        row, again, other = rows.row(i, rng(7)), rows.row(i, rng(7)), rows.row(i, rng(8))
        assert all(np.array_equal(v, again[k]) for k, v in row.items())
        differing += not all(np.array_equal(v, other[k]) for k, v in row.items())
        assert set(row["segment_ids"]) == set(row["input_segment_ids"]) or objective == "denoise"
        both = np.concatenate([row["inputs"], row["targets"]])
        real = both[(both >= 10) & (both < 200)] if objective == "span" else row["targets"][row["targets"] >= 10]
        total += len(real)
    assert differing >= 3
    assert total == sum(len(d) for d in documents if len(d) >= 2)


def test_special_tokens_do_not_enter_pairs(tokenizer):
    corpus = TokenCorpus.from_texts(["abc def ghi jkl", "x", ""], tokenizer)
    corruption = SpanCorruption([262, 263], density=0.3, eos_id=1)
    rows = CorruptedPairRows(
        corpus, corruption, 32, 32, piece_length=20, decoder_start_id=0, special_ids=tokenizer.special_ids
    )
    row = rows.row(0, rng())
    assert (row["inputs"] == 1).sum() == (row["input_segment_ids"].max())
    with pytest.raises(ValueError, match="density"):
        SpanCorruption([1], density=0)


def test_masked_rows_from_a_corpus(tokenizer):
    corpus = TokenCorpus.from_texts(["a text of some length, for masks"] * 3, tokenizer)
    rows = MappedRows(WindowRows(corpus, 40), MaskedLM(tokenizer))
    row = rows.row(0, rng())
    assert row["loss_mask"].sum() > 0 and row["tokens"].shape == (40,)
