"""Rows for the reference: the same texts as the policy's without the ids of a soft prompt, made once."""

import json

import numpy as np
import pytest

from research.data import build_rows
from research.data.byte_tokenizer import ByteTokenizer
from research.recipes.reference import rows_once, without_virtual

BYTES = ByteTokenizer()
PROMPT = (300, 301, 302)


def section(folder, objective):
    pairs = [{"prompt": f"{i} " * (1 + i % 4), "chosen": "yes" * (1 + i % 3), "rejected": "no"} for i in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    shared = {"kind": "examples", "path": str(folder / "pairs.jsonl"), "objective": objective, "heldout": 0.0}
    return shared | {"length": 18, "targets_length": 12, "long": "truncate", "virtual": PROMPT}


@pytest.mark.parametrize("objective", ["preference", "unpaired", "preference_seq2seq", "unpaired_seq2seq"])
def test_what_the_reference_reads_is_what_stands_behind_the_soft_prompt(tmp_path, objective):
    given = section(tmp_path, objective)
    ours, theirs = build_rows(given, BYTES, "train"), build_rows(without_virtual(given), BYTES, "train")
    side = "inputs" if objective.endswith("seq2seq") else "tokens"
    assert len(ours) == len(theirs)
    for i in range(len(ours)):
        mine, other = ours.row(i, np.random.default_rng(0)), theirs.row(i, np.random.default_rng(0))
        assert mine[side][:, :3].tolist() == [list(PROMPT)] * 2
        np.testing.assert_array_equal(mine[side][:, 3:], other[side])
        behind = 0 if side == "inputs" else 3
        for name in ("targets", "loss_mask"):
            np.testing.assert_array_equal(mine[name][:, behind:], other[name])
        assert not mine["loss_mask"][:, : behind - 1 if behind else 0].any()


def test_rows_are_made_once(tmp_path):
    calls = []

    def make(section, tokenizer, split):
        calls.append(split)
        return build_rows(section, tokenizer, split)

    rows, given = rows_once(make), section(tmp_path, "preference")
    assert rows(given, BYTES, "train") is rows(dict(given), BYTES, "train")
    assert rows(given | {"length": 17}, BYTES, "train") is not rows(given, BYTES, "train")
    assert calls == ["train", "train"]
