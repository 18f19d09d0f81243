"""Streams and stop strings: text never taken back, nothing of a stop string, stops that span tokens."""

import pytest

from research.decoding import Piece, generate
from research.decoding.text import TextStream, overlap

# Letters: 0 end, 1 a, 2 b, 3 c, 4 space, 5 ab, 6 bc, 7 ST, 8 OP, 9 newline, 10 é


def test_overlap():
    assert overlap("xxST", "STOP") == 2 and overlap("xx", "STOP") == 0 and overlap("STOP", "STOP") == 0


def test_stop_string_across_tokens_and_inside_one(letters):
    stream = TextStream(letters, [1], ["STOP", "bca"])
    assert stream.push([1, 7]) == 2 and stream.read() == "a"
    assert stream.push([8, 1]) == 1 and stream.stopped and stream.read() == "" and stream.text == "a"
    inside = TextStream(letters, [], ["bca"])
    assert inside.push([5, 3, 1, 1]) == 3 and inside.text == "a"  # "ab" + "c" + "a": "b" belongs to the stop


def test_text_held_back_is_given_when_it_was_no_stop(letters):
    stream = TextStream(letters, [], ["STOP"])
    stream.push([1, 7])
    assert stream.read() == "a"
    stream.push([1])
    assert stream.read() == "STa"
    stream.push([7])
    assert stream.read() == "" and stream.read(final=True) == "ST"


def test_half_characters_are_held_back():
    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode(errors="replace")

    stream = TextStream(Bytes(), b"a\xc3")
    pieces = []
    for byte in "é€b".encode()[1:]:
        stream.push([byte])
        pieces.append(stream.read())
    assert pieces == ["é", "", "", "€", "b"]


def test_the_first_tokens_space_survives():
    class Stripping(type("Base", (), {})):
        def decode(self, ids):
            return "".join(" " + "abc"[i] for i in ids).lstrip()

    stream = TextStream(Stripping(), [0])
    stream.push([1])
    assert stream.read() == " b"


@pytest.mark.parametrize("stride", [1, 2, 16])
def test_generation_ends_at_a_stop_string(chain, letters, stride):
    model, params = chain([1, 7, 8, 2, 3])
    out = generate(
        model, params, [[1], [1]], max_new_tokens=[5, 2], tokenizer=letters, stop_strings=["STOP"], stride=stride
    )
    assert out.texts == ["a", "aST"] and out.reasons == ["stop string", "length"]
    assert out.ids(0) == [1, 7, 8] and (out.logprobs[0, 3:] == 0).all()


def test_a_stop_token_is_no_text(chain, letters):
    model, params = chain([1, 2, 10, 3])
    for on_piece in (None, lambda piece: None):
        out = generate(model, params, [[1]], max_new_tokens=4, tokenizer=letters, stop_tokens=[10], on_piece=on_piece)
        assert out.texts == ["ab"] and out.ids(0) == [1, 2, 10]


@pytest.mark.parametrize("stride", [None, 3])
def test_streaming_gives_what_the_call_returns(chain, letters, stride):
    model, params = chain([1, 2, 7, 3, 10, 2, 7, 8, 1])
    pieces: list[Piece] = []
    out = generate(
        model,
        params,
        [[1], [2]],
        max_new_tokens=[9, 4],
        tokenizer=letters,
        stop_strings=["STOP"],
        on_piece=pieces.append,
        stride=stride,
    )
    for i in range(2):
        mine = [piece for piece in pieces if piece.row == i]
        assert "".join(piece.text for piece in mine) == out.texts[i]
        assert [token for piece in mine for token in piece.tokens] == out.ids(i)
        assert [value for piece in mine for value in piece.logprobs] == out.logprobs[i, : out.lengths[i]].tolist()
        assert [piece.ended for piece in mine] == [False] * (len(mine) - 1) + [True]
    assert len([piece for piece in pieces if piece.row == 0]) == (8 if stride is None else 4)
