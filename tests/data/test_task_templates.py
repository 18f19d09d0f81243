"""T0/FLAN-style templates: both directions of a task, and errors that name the row."""

import json
import re

import pytest

from research.data.build import build_source
from research.data.byte_tokenizer import ByteTokenizer
from research.data.task_templates import TaskTemplate, templated, templated_file

FORWARD = 'Review: {{ text }}\nIs it positive? ||| {{ ["no", "yes"][label] }}'
INVERTED = 'Write a {{ ["bad", "good"][label] }} review. ||| {{ text }}'
ROWS = [{"text": "fine film", "label": 1}, {"text": "dull", "label": 0}, {"text": "a joy", "label": 1}]


def test_a_row_becomes_a_prompt_and_a_completion_in_both_directions():
    assert TaskTemplate(FORWARD)(ROWS[0]) == {"prompt": "Review: fine film\nIs it positive?", "completion": "yes"}
    assert TaskTemplate(INVERTED)(ROWS[1]) == {"prompt": "Write a bad review.", "completion": "dull"}


def test_phrasings_take_turns(tmp_path):
    made = templated(ROWS, [FORWARD, INVERTED])
    assert [m["completion"] for m in made] == ["yes", "dull", "yes"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    assert list(templated_file(path, [FORWARD, INVERTED])) == made


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        ("no separator", {}, "a task template is 'prompt ||| completion'; 'no separator' has 0 separators"),
        ("a ||| b ||| c", {}, "has 2 separators"),
        ("{{ text ||| b", {}, "cannot be read"),
        (FORWARD, {"text": "x"}, "data.jsonl:7: "),
        (FORWARD, {"text": "x"}, "it has ['text']"),
        (FORWARD, {"text": "x", "label": 5}, "data.jsonl:7: "),
        ("a ||| {{ text }}", {"text": " "}, "gives an empty completion"),
        ("{{ text }} ||| a", {"text": ""}, "gives an empty prompt"),
        ("{{ text.__class__.__mro__ }} ||| a", {"text": "x"}, "needs what is not there"),
    ],
)
def test_what_does_not_fit_is_refused(text, row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskTemplate(text)(row, "data.jsonl:7")


def section(folder, name, count):
    lines = [{"prompt": f"{name} {i}", "completion": "x"} for i in range(count)]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {
        "kind": "examples",
        "path": str(folder / f"{name}.jsonl"),
        "objective": "tune",
        "length": 32,
        "heldout": 0.0,
    }


def test_a_mixture_takes_a_cap_and_a_temperature_from_the_config(tmp_path):
    mix = {
        "big": section(tmp_path, "big", 60) | {"pack": False},
        "small": section(tmp_path, "small", 6) | {"pack": False},
    }
    tokenizer = ByteTokenizer()
    share = lambda **options: build_source({"mix": mix, "batch_size": 2} | options, tokenizer).stream.counts  # noqa: E731
    assert share()["big"] / share()["small"] == pytest.approx(10, rel=0.02)
    assert share(cap=12)["big"] / share(cap=12)["small"] == pytest.approx(2, rel=0.02)
    assert share(temperature=2.0)["big"] / share(temperature=2.0)["small"] == pytest.approx(10**0.5, rel=0.02)
    with pytest.raises(ValueError, match="either weights or cap and temperature"):
        share(cap=12, weights={"big": 1.0, "small": 1.0})
    with pytest.raises(ValueError, match="rates must be positive"):
        share(weights={"big": 1.0, "small": -1.0})
