"""Preferences of every published shape, and their rows: both answers whole, behind the same prompt, alone predicted."""

import json
from collections import Counter

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.chat import CHATML
from research.data.preference import Preference, UnusablePairError, as_preference, pairs_of_ranking
from research.data.preference_rows import (
    PreferencePairRows,
    PreferenceRows,
    WithReference,
    encode_preference,
    encode_preference_pairs,
    encode_preferences,
)
from research.data.show import render
from research.data.sources import Batches, Stream

BYTES, FRAMED = ByteTokenizer(), ByteTokenizer(("<pad>", "</s>", "<unk>", "<s>"))
PAIR = {"prompt": "Why? ", "chosen": "Because.", "rejected": "No."}
USER, SAYS = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
LATER = [USER, SAYS, {"role": "user", "content": "Why?"}]
CHAT = {"prompt": LATER, "chosen": [{"role": "assistant", "content": "So."}], "rejected": [SAYS]}


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        (PAIR, Preference("Why? ", "Because.", "No.")),
        (PAIR | {"preferred": 0.7}, Preference("Why? ", "Because.", "No.", 0.7)),
        (CHAT, Preference(LATER, "So.", "Hello")),
        ({"chosen": [USER, SAYS], "rejected": [USER, SAYS | {"content": "Go"}]}, Preference([USER], "Hello", "Go")),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            Preference("\n\nHuman: a\n\nAssistant:", " b", " c"),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello"},
                "rejected": {"from": "gpt", "value": "Go"},
            },
            Preference([USER], "Hello", "Go"),
        ),
    ],
)
def test_shapes_are_read_as_they_are(example, wanted):
    assert as_preference(example) == wanted


@pytest.mark.parametrize(
    ("given", "first", "sure"), [(1, "a", 1), (2, "b", 1), (0, "a", 0.5), (1.5, "a", 0.5), (1.2, "a", 0.8)]
)
def test_annotations_of_alpaca_eval(given, first, sure):
    found = as_preference({"instruction": "Say it", "output_1": "a", "output_2": "b", "preference": given})
    assert found.chosen == first and {found.chosen, found.rejected} == {"a", "b"}
    assert found.preferred == pytest.approx(sure) and "### Instruction:\nSay it" in found.prompt


PUBLISHED = {  # file -> pairs that can be read, and why the others cannot
    "hh_rlhf_harmless/harmless-base.dev.jsonl": (
        1495,
        {"the chosen answer is empty": 4, "chosen and rejected with": 1},
    ),
    "dpo_en_demo/dpo_en_demo.json": (240, {}),
    "llms_from_scratch_pref/instruction-data-with-preference.json": (1094, {"chosen and rejected are ": 6}),
    "alpaca_eval_gpt4/alpaca-7b.annotations.json": (789, {"chosen and rejected are ": 16}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read_whole(name, data_dir):
    path = data_dir / name
    if not path.is_file():
        pytest.skip(f"no {name} in the data folder")
    text = path.read_text(encoding="utf-8")
    examples = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    good, refused = 0, Counter()
    for example in examples:
        try:
            good += as_preference(example).chosen != ""
        except UnusablePairError as error:
            refused[str(error)[:24]] += 1
    count, why = PUBLISHED[name]
    assert good == count and {k[:24]: v for k, v in why.items()} == dict(refused)


def test_a_ranking_becomes_all_its_pairs():
    found = pairs_of_ranking("q", ["a", "b", "c", "a"], [2, 1, 2, 3])
    wanted = [("b", "a", 1.0), ("a", "c", 0.5), ("b", "c", 1.0), ("b", "a", 1.0), ("c", "a", 1.0)]
    assert [p[1:] for p in found] == wanted  # a and a are no pair


def text_of(ids, tokenizer=BYTES):
    return tokenizer.decode([int(i) for i in ids])


@pytest.mark.parametrize("tokenizer", [BYTES, FRAMED], ids=["no begin token", "begin token"])
@pytest.mark.parametrize("length", [12, 13, 14, 40])
def test_a_cut_prompt_keeps_both_answers_whole_and_is_the_same_for_both(length, tokenizer):
    (coded,) = encode_preferences([PAIR], tokenizer, length=length, long="truncate")
    begin = int(tokenizer.bos_id is not None)
    prompt = "Why? "[max(0, begin + 14 - length) :]  # prompt, answer and end token have 5 + 8 + 1
    for example, answer in ((coded.chosen, "Because."), (coded.rejected, "No.")):
        assert list(example.tokens[:begin]) == [tokenizer.bos_id][:begin] and example.tokens[-1] == tokenizer.eos_id
        assert text_of(example.tokens[begin : coded.prompt], tokenizer) == prompt
        assert text_of(example.tokens[coded.prompt : -1], tokenizer) == answer
        assert example.loss_mask.tolist() == [i >= coded.prompt for i in range(len(example.tokens))]


def test_what_does_not_fit_or_says_nothing_is_left_out_where_asked():
    long = PAIR | {"chosen": "Because " * 9}
    equal, empty = PAIR | {"rejected": "Because."}, PAIR | {"chosen": " "}
    assert len(encode_preferences([PAIR, long, equal, empty], BYTES, length=20, long="drop", unusable="drop")) == 1
    pairs = encode_preference_pairs(
        [PAIR, long, equal], BYTES, inputs_length=8, targets_length=20, long="drop", unusable="drop"
    )
    assert len(pairs) == 1


def test_of_a_chat_only_the_last_turn_is_predicted():
    coded = encode_preference(as_preference(CHAT), BYTES, template=CHATML)
    for example, answer in ((coded.chosen, "So.<|im_end|>"), (coded.rejected, "Hello<|im_end|>")):
        assert text_of(example.tokens[example.loss_mask > 0]) == answer
        assert text_of(example.tokens[: coded.prompt]).endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
        assert not example.loss_mask[: coded.prompt].any()


def test_rows_put_both_answers_side_by_side():
    coded = encode_preferences([PAIR, PAIR | {"preferred": 0.5}], BYTES, length=16)
    source = Batches(Stream(PreferenceRows(coded, 16), shuffle=False), 2)
    batch = source.batch(0)
    assert {k: v.shape for k, v in batch.items()} == {k: (2, 2, 16) for k in batch if k != "preferred"} | {
        "preferred": (2,)
    }
    assert batch["preferred"].tolist() == [1, 0.5]
    for i, answer in enumerate(("Because.", "No.")):
        targets = batch["targets"][0, i][batch["loss_mask"][0, i] > 0]
        assert text_of(targets[:-1]) == answer and targets[-1] == BYTES.eos_id
        assert batch["segment_ids"][0, i].sum() == 6 + len(answer)
    known = Batches(Stream(WithReference(PreferenceRows(coded, 16), [[1, 2], [3, 4]]), shuffle=False), 2).batch(0)
    assert known["reference"].tolist() == [[1, 2], [3, 4]]


def test_rows_of_an_encoder_decoder_hold_the_prompt_twice():
    coded = encode_preference_pairs([PAIR], BYTES, inputs_length=6, targets_length=9, long="truncate")
    row = PreferencePairRows(coded, 6, 9, decoder_start_id=2).row(0)
    assert row["inputs"].shape == (2, 6) and row["tokens"].shape == row["targets"].shape == (2, 9)
    np.testing.assert_array_equal(*row["inputs"])
    assert row["inputs"][0, -1] == BYTES.eos_id  # a prompt that is cut keeps its end token
    assert row["tokens"][:, 0].tolist() == [2, 2]
    for i, answer in enumerate(("Because.", "No.")):
        targets = row["targets"][i][row["loss_mask"][i] > 0]
        assert text_of(targets[:-1]) == answer and targets[-1] == BYTES.eos_id


def test_what_is_compared_is_seen():
    rows = PreferenceRows(encode_preferences([PAIR | {"preferred": 0.7}], BYTES, length=20), 20)
    text = render(Batches(Stream(rows), 1).batch(0), BYTES)
    lines = text.plain.splitlines()
    assert lines[0].startswith("pair 0, chosen (0.70): ") and "9 tokens predicted" in lines[0]
    assert any(line.startswith("pair 0, rejected (0.30): ") and "4 tokens predicted" in line for line in lines)
    bold = "".join(text.plain[s.start : s.end] for s in text.spans if "underline" in str(s.style))
    pieces = ["".join(BYTES.pieces(BYTES.encode(answer, eos=True))) for answer in ("Because.", "No.")]
    assert bold == "".join(pieces)
