"""Tokenizers against golden ids of the official libraries, and what must hold for every kind."""

import json

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.llama2c_tokenizer import Llama2cTokenizer
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.data.tokenizer import Tokenizer, load_tokenizer

TEXTS = [
    "Once upon a time, there was a cat.",
    "def f(x):\n    return x  # naïve 日本 🤗\n\n\tend",
    " leading and  double  spaces ",
    "e\u0301 \u200d \U0001f468\u200d\U0001f469 ﬁ ½",
    "",
]


def english(length: int) -> list[str]:
    """Real text that every Python carries."""
    from pydoc_data.topics import topics

    return ["\n\n".join(topics[k] for k in sorted(topics))[:length]]


@pytest.fixture(scope="module")
def trained():
    words = english(60_000)
    marks = ["<|user|>", "<|assistant|>", "<mask>"]
    return train_sentencepiece(words, 420, special_tokens=marks, sentinels=4)


@pytest.fixture(scope="module")
def tokenizers(data_dir, trained):
    folder = data_dir / "tokenizers"
    return {
        "bytes": ByteTokenizer(extra=["<extra_id_0>"]),
        "trained": trained,
        "llama2": load_tokenizer(folder / "llama2_tokenizer.model"),
        "gpt2": load_tokenizer(folder / "gpt2_encoder.json"),
        "bert": load_tokenizer(folder / "bert_base_uncased_vocab.txt"),
        "tiny": load_tokenizer(folder / "torchtune_tiny_bpe_tokenizer.json"),
        "llama2c": load_tokenizer(folder / "llama2c_tokenizer.bin"),
        "stories": load_tokenizer(data_dir / "stories260K" / "tokenizer.bin"),
    }


def test_sentencepiece_goldens(data_dir):
    golden = json.loads((data_dir / "golden" / "sentencepiece_golden.json").read_text())
    assert len(golden["models"]) == 6
    for name, model in golden["models"].items():
        tokenizer = load_tokenizer(data_dir / "tokenizers" / name)
        assert tokenizer.vocab_size == model["vocab_size"]
        ids = [tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
        want = [model["unk"], model["bos"], model["eos"], model["pad"]]
        assert [-1 if i is None else i for i in ids] == want
        for case in model["cases"]:
            assert tokenizer.encode(case["text"], specials=False) == case["ids"], (name, case["text"])
            if tokenizer.unk_id not in case["ids"]:  # the golden shows an unknown character itself
                assert tokenizer.pieces(case["ids"]) == case["pieces"]
            assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_seqio_test_model(data_dir):
    # google/seqio's own test vocabulary (oracles.md, section 3).
    tokenizer = load_tokenizer(data_dir / "tokenizers" / "seqio_test_sentencepiece.model")
    fox = [3, 2, 20, 4, 3, 2, 8, 13, 2, 3, 2, 23, 7, 19, 22, 3, 2, 7, 2]
    assert tokenizer.encode("The quick brown fox.") == fox
    assert tokenizer.encode("this is a test") == [11, 8, 6, 3, 8, 6, 3, 5, 10]


def test_gpt2_goldens(data_dir):
    golden = json.loads((data_dir / "golden" / "gpt2_bpe_golden.json").read_text())
    for name in ("gpt2_encoder.json", "gpt2_vocab.bpe"):
        tokenizer = load_tokenizer(data_dir / "tokenizers" / name)
        assert tokenizer.vocab_size == 50257 and tokenizer.eos_id == tokenizer.bos_id == 50256
        for case in golden["cases"]:
            assert tokenizer.encode(case["text"]) == case["ids"]
            assert tokenizer.decode(case["ids"]) == case["text"]
    text = (data_dir / "tinyshakespeare" / "input.txt").read_text()
    cut = int(0.9 * len(text))
    counts = len(tokenizer.encode(text[:cut])), len(tokenizer.encode(text[cut:]))
    assert counts == (golden["tinyshakespeare_train90_tokens"], golden["tinyshakespeare_val10_tokens"])
    botchan = (data_dir / "botchan" / "botchan.txt").read_text()
    assert len(tokenizer.encode(botchan)) == golden["botchan_total_tokens"]


def test_byt5_bytes():
    # ByT5: byte + 3, "this is a test" begins 119 107 108 118 35 (oracles.md, section 3).
    ids = ByteTokenizer().encode("this is a test", eos=True)
    assert ids[:10] == [119, 107, 108, 118, 35, 108, 118, 35, 100, 35] and ids[-1] == 1


def test_stories260k_goldens(data_dir):
    golden = json.loads((data_dir / "golden" / "stories260K_golden.json").read_text())
    tokenizer = load_tokenizer(data_dir / "stories260K" / "tokenizer.bin")
    assert tokenizer.vocab_size == 512
    for text, ids in golden["encode"].items():
        assert tokenizer.encode(text, bos=True) == ids
        assert tokenizer.decode(ids) == text
    text = golden["published_greedy_200_steps"]
    assert tokenizer.decode(golden["greedy_ids_from_bos"][:201]) == text


def test_llama2c_file_agrees_with_the_sentencepiece_model_it_was_made_from(data_dir):
    ours = load_tokenizer(data_dir / "tokenizers" / "llama2c_tokenizer.bin")
    official = load_tokenizer(data_dir / "tokenizers" / "llama2_tokenizer.model")
    for text in ["Hello, world!", "naïve café 日本語 🤗", "x" * 50 + " the the", "ab\ncd"]:
        assert ours.encode(text) == official.encode(text)


def test_llama2c_merges_like_the_plain_loop(data_dir):
    """The heap gives what llama2.c's own loop gives: best pair of the whole text, leftmost first, again."""
    tokenizer = load_tokenizer(data_dir / "stories260K" / "tokenizer.bin")
    pieces, scores = tokenizer._pieces, tokenizer.scores
    text = (data_dir / "botchan" / "botchan.txt").read_text()[:1200]
    for line in text.splitlines():
        ids = tokenizer._symbols(line)[0]
        while True:
            merged = [tokenizer._ids.get(pieces[a] + pieces[b]) for a, b in zip(ids, ids[1:], strict=False)]
            best = max(((scores[m], -i) for i, m in enumerate(merged) if m is not None), default=None)
            if best is None:
                break
            i = -best[1]
            ids[i : i + 2] = [merged[i]]
        assert tokenizer.encode(line) == ids


def test_every_kind_keeps_the_promises(tokenizers, tmp_path):
    for name, tokenizer in tokenizers.items():
        assert isinstance(tokenizer, Tokenizer)
        tokenizer.save(tmp_path / name)
        again = load_tokenizer(tmp_path / name)
        assert type(again) is type(tokenizer) and again.vocab_size == tokenizer.vocab_size, name
        assert again.fingerprint == tokenizer.fingerprint
        roles = ["bos_id", "eos_id", "pad_id", "unk_id", "mask_id", "special_ids"]
        assert [getattr(again, r) for r in roles] == [getattr(tokenizer, r) for r in roles], name
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert again.encode(text) == ids and all(0 <= i < tokenizer.vocab_size for i in ids)
            with_offsets, offsets = tokenizer.encode_with_offsets(text)
            assert with_offsets == ids and len(offsets) == len(ids)
            assert all(0 <= a <= b <= len(text) for a, b in offsets)
            assert len(tokenizer.pieces(ids)) == len(tokenizer.word_starts(ids)) == len(ids)
            if name not in ("bert", "tiny"):  # one lowers case, the other has not all 256 bytes
                assert tokenizer.decode(ids) == text, name


def test_special_tokens_in_text(tokenizers):
    trained = tokenizers["trained"]
    assert (trained.pad_id, trained.eos_id, trained.unk_id, trained.bos_id) == (0, 1, 2, 3)
    user = trained.id_of("<|user|>")
    assert trained.encode("<|user|>cats")[0] == user and user in trained.special_ids
    assert user not in trained.encode("<|user|>cats", specials=False)
    assert trained.mask_id == trained.id_of("<mask>")
    sentinel = trained.id_of("<extra_id_3>")
    assert trained.encode("a<extra_id_3>b").count(sentinel) == 1
    assert trained.decode([sentinel]) == "<extra_id_3>"
    assert trained.decode(trained.encode("cats", bos=True, eos=True)) == "cats"
    assert trained.decode([trained.eos_id], specials=True) == "</s>"
    gpt2 = tokenizers["gpt2"]
    assert gpt2.encode("a<|endoftext|>b") == [64, 50256, 65]
    assert 50256 not in gpt2.encode("a<|endoftext|>b", specials=False)
    bert = tokenizers["bert"]
    assert (bert.bos_id, bert.eos_id, bert.pad_id, bert.unk_id, bert.mask_id) == (101, 102, 0, 100, 103)
    assert bert.encode("[MASK] is naïve.", bos=True, eos=True) == [101, 103, 2003, 15743, 1012, 102]
    with pytest.raises(ValueError, match="begin"):
        ByteTokenizer().encode("x", bos=True)


def test_offsets_point_at_the_characters(tokenizers):
    text = "naïve cats <|user|> 🤗 ok"
    for name, tokenizer in tokenizers.items():
        ids, offsets = tokenizer.encode_with_offsets(text)
        if name == "tiny":
            continue
        covered = set()
        for a, b in offsets:
            covered |= set(range(a, b))
        assert all(i in covered for i, c in enumerate(text) if not c.isspace()), name
        if name == "trained":
            at = text.index("<|user|>")
            assert offsets[ids.index(tokenizer.id_of("<|user|>"))] == (at, at + 8)


def test_word_starts(tokenizers):
    for name in ("trained", "llama2", "gpt2", "bert", "bytes", "stories"):
        tokenizer = tokenizers[name]
        ids, offsets = tokenizer.encode_with_offsets("the mat, unbelievably returned naïve")
        text = "the mat, unbelievably returned naïve"
        starts = tokenizer.word_starts(ids)
        inside = [text[a - 1 : a + 1].isalpha() and a > 0 for a, _ in offsets]
        assert not any(np.array(inside) & starts), name
        begins = {a for (a, _), s in zip(offsets, starts, strict=True) if s}
        for word in ("the", "mat", "unbelievably", "returned", "naïve"):
            at = text.index(word)
            assert at in begins or at - 1 in begins, (name, word)
    assert tokenizers["bert"].word_starts([7592, 15743, 2072]).tolist() == [True, True, False]  # ##i
    assert ByteTokenizer().word_starts([]).tolist() == []


def test_added_tokens_beside_a_sentencepiece_model(data_dir, tmp_path):
    model = (data_dir / "tokenizers" / "sp_test_model.model").read_bytes()
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "added_tokens.json").write_text('{"<extra_id_0>": 1001, "<extra_id_1>": 1000}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 1002
    ids = tokenizer.encode("Hello <extra_id_0> world")
    assert 1001 in ids and tokenizer.decode(ids, specials=True).count("<extra_id_0>") == 1
    (tmp_path / "added_tokens.json").write_text('{"<extra_id_0>": 1005}')
    with pytest.raises(ValueError, match="without a gap"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_is_lossless_and_repeatable(kind):
    texts = english(20_000)
    first = train_sentencepiece(texts, 400, kind=kind)
    second = train_sentencepiece(texts, 400, kind=kind)
    assert first.fingerprint == second.fingerprint and first.vocab_size == 400
    for text in TEXTS:
        assert first.decode(first.encode(text)) == text


def test_training_errors_are_one_line():
    with pytest.raises(ValueError, match="unknown kind 'wordpiece'"):
        train_sentencepiece(["x"], 300, kind="wordpiece")
    with pytest.raises(ValueError, match="could not train 9000 unigram pieces"):
        train_sentencepiece(["too little text"], 9000)
    with pytest.raises(ValueError, match="could not train"):
        train_sentencepiece([], 300)


def test_loading_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    for name, match in [
        ("a.model", "not a SentencePiece model"),
        ("a.json", "is not JSON"),
        ("a.bin", "not a llama2.c tokenizer"),
        ("a.txt", "no \\[UNK\\]"),
        ("a.xyz", "unknown tokenizer file"),
    ]:
        (tmp_path / name).write_text("not this")
        with pytest.raises(ValueError, match=match):
            load_tokenizer(tmp_path / name)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="vocab"):
        load_tokenizer(tmp_path / "encoder.json")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ValueError, match="no 'model' entry"):
        load_tokenizer(tmp_path / "b.json")


@pytest.mark.oracle
def test_wordpiece_and_saved_folders_equal_transformers(data_dir, tmp_path, tokenizers):
    transformers = pytest.importorskip("transformers")
    text = "Unaffable naïveté costs $3.50, don't it? 日本 [MASK]"
    tokenizers["bert"].save(tmp_path / "bert")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")
    assert theirs(text).input_ids[1:-1] == tokenizers["bert"].encode(text) or theirs(
        text, add_special_tokens=False
    ).input_ids == tokenizers["bert"].encode(text)
    tokenizers["gpt2"].save(tmp_path / "gpt2")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    assert theirs(text).input_ids == tokenizers["gpt2"].encode(text)
    assert theirs.eos_token_id == tokenizers["gpt2"].eos_id


def test_llama2c_refuses_a_short_table():
    with pytest.raises(ValueError, match="259"):
        Llama2cTokenizer([b"a"], [0.0], 1)
