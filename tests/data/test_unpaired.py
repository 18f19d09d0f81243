"""Single answers with a label, of every published shape, and the mismatched answer that stands beside each."""

import json

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.preference_rows import PreferenceRows
from research.data.rows import MappedRows
from research.data.show import render
from research.data.sources import Batches, Stream
from research.data.unpaired import Judged, as_judged, desirable, encode_unpaired, encode_unpaired_seq2seq

BYTES = ByteTokenizer(("<pad>", "</s>", "<unk>", "<s>"))
USER, SAYS = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PAIR = {"prompt": "Why? ", "chosen": "Because.", "rejected": "No."}


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, [Judged("a", "b", True)]),
        ({"prompt": [USER], "completion": [SAYS], "label": 0}, [Judged([USER], "Hello", False)]),
        ({"messages": [USER, SAYS], "label": False}, [Judged([USER], "Hello", False)]),
        (PAIR, [Judged("Why? ", "Because.", True), Judged("Why? ", "No.", False)]),
        (PAIR | {"preferred": 0.2}, [Judged("Why? ", "Because.", False), Judged("Why? ", "No.", True)]),
    ],
)
def test_shapes_are_read_as_they_are(example, wanted):
    assert as_judged(example) == wanted


def test_the_published_file_is_read_whole(data_dir):
    path = data_dir / "kto_en_demo" / "kto_en_demo.json"
    if not path.is_file():
        pytest.skip("no kto_en_demo in the data folder")
    found = [judged for example in json.loads(path.read_text()) for judged in as_judged(example)]
    assert len(found) == 300 and 0 < sum(judged.desirable for judged in found) < 300


def examples(generator, n):
    """Answers to few prompts, so that neighbours often share one."""
    words = lambda low, high: "".join(generator.choice(list("abc"), generator.integers(low, high)))  # noqa: E731
    made = [{"prompt": generator.choice(["p ", "qq ", "rrr "]), "completion": words(1, 9)} for _ in range(n)]
    return [example | {"label": bool(generator.integers(2))} for example in made]


def partner(found, i):
    """The nearest answer before the i-th, round the end, that is to another prompt."""
    j = (i - 1) % len(found)
    while found[j]["prompt"] == found[i]["prompt"]:
        j = (j - 1) % len(found)
    return found[j]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [11, 30])
def test_beside_each_answer_stands_one_to_another_prompt(seed, length):
    found = examples(np.random.default_rng(seed), 14)
    coded = encode_unpaired(found, BYTES, length=length, long="truncate")
    pairs = encode_unpaired_seq2seq(found, BYTES, inputs_length=9, targets_length=12)
    for i, (one, pair) in enumerate(zip(coded, pairs, strict=True)):
        prompt, answer, other = found[i]["prompt"], found[i]["completion"], partner(found, i)["completion"]
        ends = [BYTES.eos_id]
        kept = prompt[max(0, len(prompt) + len(answer) + 2 - length) :]  # begin and end token stay
        head = [BYTES.bos_id, *BYTES.encode(kept)]
        assert one.chosen.tokens.tolist() == head + BYTES.encode(answer) + ends and one.prompt == len(head)
        assert one.rejected.tokens.tolist() == (head + BYTES.encode(other) + ends)[:length]
        for example in (one.chosen, one.rejected):
            np.testing.assert_array_equal(example.loss_mask, np.arange(len(example.tokens)) >= len(head))
        assert (
            pair.chosen.tolist() == BYTES.encode(answer) + ends and pair.rejected.tolist() == BYTES.encode(other) + ends
        )
        assert one.preferred == pair.preferred == float(found[i]["label"])


def test_rows_say_which_answers_are_good():
    coded = encode_unpaired([PAIR, PAIR | {"prompt": "How? "}], BYTES, length=20)
    batch = Batches(Stream(MappedRows(PreferenceRows(coded, 20), desirable), shuffle=False), 4).batch(0)
    assert batch["desirable"].tolist() == [1, 0, 1, 0] and batch["tokens"].shape == (4, 2, 20)
    assert "preferred" not in batch
    lines = render(batch, BYTES).plain.splitlines()
    assert lines[0].startswith("row 0, desirable: ") and lines[2].startswith("row 0, answer to another: ")
