"""A llama2.c tokenizer made into a tokenizer.json gives the same ids and texts; transformers reads it."""

import random

import pytest

from research.data.huggingface_tokenizer import from_tokenizer_json
from research.data.llama2c_huggingface import as_huggingface
from research.data.llama2c_tokenizer import Llama2cTokenizer


@pytest.fixture(scope="module", params=["stories260K/tokenizer.bin", "tokenizers/llama2c_tokenizer.bin"])
def pair(request, data_dir):
    ours = Llama2cTokenizer.load(data_dir / request.param)
    return ours, as_huggingface(ours)


def texts(data_dir):
    lines = (data_dir / "tinyshakespeare" / "input.txt").read_text().split("\n\n")
    rng = random.Random(0)
    strange = ["".join(rng.choice("aé–漢😀\t\n  \\x<s") for _ in range(rng.randint(1, 40))) for _ in range(100)]
    return [*rng.sample(lines, 200), *strange, "a", " ", "  two", "trailing "]


def test_ids_and_texts_are_the_same(pair, data_dir):
    ours, theirs = pair
    assert (ours.vocab_size, ours.bos_id, ours.eos_id) == (theirs.vocab_size, theirs.bos_id, theirs.eos_id)
    for text in texts(data_dir):
        ids = ours.encode(text)
        assert theirs.encode(text) == ids, text
        assert theirs.decode(ids) == ours.decode(ids)


@pytest.mark.oracle
def test_transformers_reads_it(pair, data_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, theirs = pair
    theirs.save(tmp_path)
    assert from_tokenizer_json(tmp_path / "tokenizer.json").fingerprint == theirs.fingerprint
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in texts(data_dir)[::10]:
        assert peer.encode(text) == [1, *ours.encode(text)]
