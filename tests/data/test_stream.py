"""A stream of ids gives the text of the whole, and no call ever shows half a character."""

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.stream import StreamDecoder, decode_stream
from research.data.tokenizer import load_tokenizer

TEXT = "Once upon a time 🤗, naïve 日本\n\n  end."


@pytest.mark.parametrize(
    "name",
    ["llama2_tokenizer.model", "mistral_v1.model", "gpt2_encoder.json", "llama2c_tokenizer.bin", "torchtune_m.model"],
)
def test_stream_equals_decode(data_dir, name):
    tokenizer = load_tokenizer(data_dir / "tokenizers" / name)
    ids = tokenizer.encode(TEXT, specials=False)
    parts = list(decode_stream(tokenizer, ids))
    assert "".join(parts) == tokenizer.decode(ids)
    assert len(parts) > 5
    if name != "torchtune_m.model":  # its vocabulary lacks these letters
        assert not any("\ufffd" in p for p in parts)
        # Ids at random; the excluded model also drops spaces while decoding what no encoder writes.
        rng = np.random.default_rng(0)
    for _ in range(30 * (name != "torchtune_m.model")):
        ids = rng.integers(3, tokenizer.vocab_size, 40).tolist()
        assert "".join(decode_stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_continuation_keeps_its_leading_space(data_dir):
    tokenizer = load_tokenizer(data_dir / "stories260K" / "tokenizer.bin")
    ids = tokenizer.encode("Once upon a time there was", bos=True)
    parts = list(decode_stream(tokenizer, ids[4:], context=ids[:4]))
    assert tokenizer.decode(ids[:4]) + "".join(parts) == "Once upon a time there was"
    assert parts[0].startswith(" ")


def test_broken_bytes_are_held_then_shown():
    tokenizer = ByteTokenizer()
    decoder = StreamDecoder(tokenizer)
    euro = tokenizer.encode("€")
    assert [decoder.push(i) for i in euro] == ["", "", "€"]
    assert decoder.push(euro[0]) == ""
    assert decoder.push(tokenizer.encode("x")[0]) == "\ufffdx"
    assert decoder.push(euro[0]) == "" and decoder.flush() == "\ufffd"
    rng = np.random.default_rng(1)
    for _ in range(50):
        ids = rng.integers(3, 259, 30).tolist()
        assert "".join(decode_stream(tokenizer, ids)) == tokenizer.decode(ids)
    # A stream that never becomes text still comes out, three marks behind.
    assert sum(map(len, (StreamDecoder(tokenizer).push(258) for _ in range(3)))) == 0
    decoder = StreamDecoder(tokenizer)
    assert sum(len(decoder.push(258)) for _ in range(20)) == 17


def test_empty_stream():
    assert list(decode_stream(ByteTokenizer(), [])) == []
