"""Pairs for encoder-decoders: what each side reads, what is cut, what shares a row, what is refused."""

import json

import numpy as np
import pytest

from research.data import build_rows, build_source, render
from research.data.byte_tokenizer import ByteTokenizer
from research.data.chat import CHATML
from research.data.seq2seq import PairRows, encode_pair, encode_pairs
from research.data.templates import alpaca_prompt

EOS = 1
TOKENS = ByteTokenizer()


def ids(text):
    return [b + 3 for b in text.encode()]


def pairs_of(*texts):
    return [{"prompt": p, "completion": c} for p, c in texts]


def test_the_encoder_reads_the_prompt_and_the_decoder_learns_the_completion_and_the_end():
    pair = encode_pair({"prompt": "2+2", "completion": "4!"}, TOKENS)
    assert pair.inputs.tolist() == [*ids("2+2"), EOS] and pair.targets.tolist() == [*ids("4!"), EOS]
    alpaca = {"instruction": "Add", "input": "2 2", "output": "4"}
    assert encode_pair(alpaca, TOKENS).inputs.tolist() == [*ids(alpaca_prompt(alpaca)), EOS]


def test_a_chat_teaches_its_last_message():
    tokenizer = ByteTokenizer(chat_template=CHATML)
    said = [("user", "hi"), ("assistant", "yes?"), ("user", "2+2"), ("assistant", "4")]
    pair = encode_pair({"messages": [{"role": r, "content": c} for r, c in said]}, tokenizer)
    text = tokenizer.decode(pair.inputs)
    assert text.endswith("<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n") and "yes?" in text
    assert pair.targets.tolist() == [*ids("4"), EOS]


def test_rows_hold_both_sides_by_hand():
    pairs = encode_pairs(pairs_of(("ab", "c"), ("d", "ef")), TOKENS, inputs_length=8, targets_length=6)
    a, b, c, d, e, f = ids("abcdef")
    (row,) = [PairRows(pairs, 8, 6, decoder_start_id=9, virtual=[300]).row(0)]
    assert row["inputs"].tolist() == [300, a, b, EOS, 300, d, EOS, 0]
    assert row["input_segment_ids"].tolist() == [1, 1, 1, 1, 2, 2, 2, 0]
    assert row["input_positions"].tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert row["tokens"].tolist() == [9, c, 9, e, f, 0]
    assert row["targets"].tolist() == [c, EOS, e, f, EOS, 0]
    assert row["segment_ids"].tolist() == [1, 1, 2, 2, 2, 0] and row["loss_mask"].tolist() == [1, 1, 1, 1, 1, 0]
    apart = PairRows(pairs, 8, 6, decoder_start_id=9, pack=False)
    assert len(apart) == 2 and apart.row(1)["inputs"].tolist() == [d, EOS, 0, 0, 0, 0, 0, 0]


def test_long_examples_are_refused_cut_or_dropped():
    examples = pairs_of(("abcdef", "x"), ("a", "uvwxyz"), ("a", "b"))
    shape = {"inputs_length": 4, "targets_length": 3}
    with pytest.raises(ValueError, match=r"2 of 3 examples exceed 4 input or 3 target tokens \(the longest have 7 and"):
        encode_pairs(examples, TOKENS, **shape)
    cut = encode_pairs(examples, TOKENS, **shape, long="truncate")
    # The prompt keeps its end token; a completion that was cut does not end.
    assert cut[0].inputs.tolist() == [*ids("abc"), EOS] and cut[1].targets.tolist() == ids("uvw")
    kept = encode_pairs(examples, TOKENS, **shape, long="drop")
    assert [p.targets.tolist() for p in kept] == [[*ids("b"), EOS]]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "a"}, r"example 0: .*needs prompt \+ completion.*got columns \['text'\]"),
        ({"prompt": "a", "completion": ""}, "example 0: the completion is empty"),
        ({"prompt": "a", "completion": 4}, r"example 0: prompt and completion must be texts, got \['str', 'int'\]"),
        ({"messages": [{"role": "user", "content": "a"}]}, r"must be the assistant's.*roles are \['user'\]"),
    ],
)
def test_what_is_no_pair_is_refused(example, message):
    with pytest.raises(ValueError, match=message):
        encode_pairs([example], TOKENS, inputs_length=9, targets_length=9)


def test_truncation_that_removes_what_matters_counts_it():
    with pytest.raises(ValueError, match="removes the whole prompt of 2 of 2 examples"):
        encode_pairs(pairs_of(("a", "b"), ("c", "d")), TOKENS, inputs_length=1, targets_length=9, long="truncate")
    with pytest.raises(ValueError, match="rows of 0 inputs and 9 targets hold no example"):
        encode_pairs(pairs_of(("a", "b")), TOKENS, inputs_length=0, targets_length=9, long="truncate")


def section(folder, **more):
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"kind": "examples", "path": str(folder / "rows.jsonl"), "objective": "seq2seq", "length": 64} | more


FORWARD = 'Review: {{ text }} Good? ||| {{ ["no", "yes"][label] }}'
INVERTED = 'Write a {{ ["bad", "good"][label] }} review. ||| {{ text }}'


def test_templates_make_examples_of_rows_and_a_row_stays_on_its_side(tmp_path):
    def texts(split, *templates):
        rows = build_rows(section(tmp_path, templates=templates, pack=False, heldout=0.3), TOKENS, split)
        every = [rows.row(i) for i in range(len(rows))]
        return [TOKENS.decode(r["inputs"]) + " -> " + TOKENS.decode(r["targets"]) for r in every]

    train, held = texts("train", FORWARD), texts("heldout", FORWARD)
    assert len(train) + len(held) == 60 and min(len(train), len(held)) > 5
    assert all("Good?" in t for t in train + held)
    numbers = {t.split("film ")[1].split()[0] for t in held}
    assert {t.split("film ")[1] for t in texts("heldout", INVERTED)} == numbers
    both = texts("train", FORWARD, INVERTED)
    assert 0 < sum("Good?" in t for t in both) < len(both) == len(train)
    # The same option serves decoders.
    batch = build_source(section(tmp_path, templates=[FORWARD], objective="tune"), TOKENS).batch(0)
    assert "Good?" in TOKENS.decode(batch["tokens"][0])


def test_a_template_that_does_not_fit_names_file_and_row(tmp_path):
    data = section(tmp_path, templates=("{{ text }} ||| {{ stars }}",))
    with pytest.raises(ValueError, match=r"rows.jsonl:1: .*needs what is not there"):
        build_rows(data, TOKENS)
    with pytest.raises(ValueError, match="templates is a list of phrasings, given the text 'a'"):
        build_rows(data | {"templates": "a"}, TOKENS)
    with pytest.raises(ValueError, match=r"templates make examples.*the objective is 'causal'"):
        build_rows(data | {"kind": "text", "objective": "causal"}, TOKENS)


def test_the_decoder_begins_with_the_token_it_is_told(tmp_path):
    data = section(tmp_path, templates=[FORWARD])
    assert build_rows(data, TOKENS).row(0)["tokens"][0] == 0
    assert build_rows(data | {"decoder_start": 2}, TOKENS).row(0)["tokens"][0] == 2
    assert np.unique(build_rows(data | {"decoder_start": 2}, TOKENS).row(0)["segment_ids"]).size > 2


def test_a_soft_prompt_can_be_shown_by_a_tokenizer_that_does_not_know_its_ids(tmp_path):
    class Strict:
        vocab_size = TOKENS.vocab_size

        def pieces(self, ids):
            if max(ids, default=0) >= self.vocab_size:
                raise IndexError("OUT_OF_RANGE: piece id is out of range.")
            return TOKENS.pieces(ids)

    rows = build_rows(section(tmp_path, templates=[FORWARD], virtual=(259, 260)), TOKENS)
    batch = {name: array[None] for name, array in rows.row(0).items()}
    assert "<virtual 0><virtual 1><0x52>" in render(batch, Strict(), rows=1).plain
