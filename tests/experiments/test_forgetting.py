"""Forgetting: the parts are cut and split as said, cells learn, replay keeps more, refusals are clear."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.forgetting import get_config
from experiments import forgetting, texts
from experiments.trial import linear_decay, train
from research.data.rows import PackedRows
from research.data.sources import Batches, Stream
from research.models import build
from research.recipes.pretrain import language_model_loss
from tests.models.conftest import tiny_config

LENGTH = 16


class Letters:
    bos_id, eos_id, pad_id = 1, 2, 0

    def encode(self, text, **_):
        return [3 + ord(c) % 50 for c in text]


def test_windows_hold_every_token_once_and_begin_alike():
    found = forgetting.windows([list(range(3, 10)), [], [5]], 1, 4)
    assert [e.tokens.tolist() for e in found] == [[1, 3, 4, 5], [1, 6, 7, 8], [1, 9], [1, 5]]
    assert all(e.loss_mask.all() for e in found)


@pytest.mark.parametrize("text", ["a\n\nbb\n\nccc\n\nd", "no blank line", "x" * 50 + "\n\n" + "y"])
def test_pieces_end_with_blank_lines_and_lose_nothing(text):
    pieces = texts.pieces_of(text, 4)
    assert "\n\n".join(pieces) == text and all(len(p) >= 2 for p in pieces[:-1])


def test_parts_are_read_and_one_in_ten_is_held_out(tmp_path):
    (tmp_path / "play.txt").write_text("\n\n".join("line " + "z" * 2000 for _ in range(20)))
    (tmp_path / "page.md").write_text("# x\n```\n$ run\nOnce upon a time.\n```\ntext\n```\nOnce more.\n```\n")
    play = forgetting.read_part({"text": "play.txt"}, tmp_path, Letters(), LENGTH)
    per_piece = -(-2005 // (LENGTH - 1))
    assert [len(play[side]) for side in ("train", "heldout")] == [18 * per_piece, 2 * per_piece]
    few = forgetting.read_part({"text": "play.txt", "limit": 10}, tmp_path, Letters(), LENGTH)
    assert len(few["train"]) == 9 * per_piece
    page = forgetting.read_part({"fenced": "page.md"}, tmp_path, Letters(), 64)
    assert not page["train"] and [len(e.tokens) for e in page["heldout"]] == [18, 11]
    with pytest.raises(ValueError, match=r"one of text, python_docs, examples, fenced; given \['file'\]"):
        forgetting.read_part({"file": "x"}, tmp_path, Letters(), LENGTH)


@pytest.fixture(scope="module")
def world():
    """A tiny decoder that has learned counting up, and texts that count up and down."""
    model = build(tiny_config("llama"), unroll=True)
    up = [[3 + (s + i) % 20 for i in range(LENGTH - 1)] for s in range(20)]
    down = [ids[::-1] for ids in up]
    parts = {}
    for name, lists in (("up", up), ("down", down)):
        rows = forgetting.windows(lists, 1, LENGTH)
        parts[name] = {"train": rows, "heldout": rows[::4]}
    source = Batches(Stream(PackedRows(parts["up"]["train"], LENGTH), 0), 4)
    batches = [source.batch(i) for i in range(60)]
    params, _ = train(
        language_model_loss(model), model.init(jax.random.key(0)), linear_decay(1e-2, 60), batches, jax.random.key(1)
    )
    config = {"length": LENGTH, "batch_size": 4, "learn": "down", "steps": 60, "heldout_batches": 4}
    full = {"recipe": [{"method": "full"}], "learning_rate": 1e-2, "replay": {}}
    return lambda method: forgetting.run_cell(config, method, 0, model, params, parts), full


def test_replay_and_small_adapters_forget_less(world):
    cell, full = world
    lora = full | {"recipe": [{"method": "lora", "rank": 1}], "learning_rate": 1e-3}
    before = cell({"recipe": [], "replay": {}})["losses"]
    after = {name: cell(m)["losses"] for name, m in {
        "full": full, "replay": full | {"replay": {"up": 0.5}}, "lora": lora}.items()}  # fmt: skip
    assert before["loss/up"] < 0.7 < before["loss/down"]
    assert after["full"]["loss/down"] < before["loss/down"] - 1 and after["full"]["loss/up"] > before["loss/up"] + 0.5
    assert after["replay"]["loss/up"] < after["full"]["loss/up"] - 0.3
    assert after["lora"]["loss/up"] < after["full"]["loss/up"]


def test_a_soft_prompt_changes_nothing_but_itself_and_cells_repeat(world):
    cell, full = world
    prompt = full | {"recipe": [{"method": "prompt", "length": 3}], "learning_rate": 0.03}
    first, again = cell(prompt), cell(prompt)
    assert first["losses"] == again["losses"] and first["trainable"] == 3 * 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learn": "opera"}, "learn is 'opera'; the parts are"),
        ({"remember": ["shakespeare"]}, "without 'shakespeare'"),
        ({"methods.full.replay": {"novels": 1.0}}, "method 'full' replays {'novels': 1.0}; expected positive shares"),
        ({"methods.full.replay": {"poems": 0.1}}, "expected positive shares below 1 in all, of"),
    ],
)
def test_refusals(change, message):
    config = get_config().to_dict()
    for path, value in change.items():
        *outer, last = path.split(".")
        node = config
        for name in outer:
            node = node[name]
        node[last] = value
    with pytest.raises(ValueError, match=message):
        forgetting.check(config)


def test_the_whole_command_on_the_real_model(data_dir, tmp_path):
    out = io.StringIO()
    config = get_config("tiny").to_dict() | {"data": str(data_dir)}
    config["parts"] = {name: config["parts"][name] for name in ("shakespeare", "published stories")}
    forgetting.work(config, tmp_path, Console(file=out, width=200))
    said = out.getvalue()
    assert "shakespeare (learned)" in said and "own samples (known)" in said and "full, 50 % replay" in said
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("forgetting", "learned"))
    files = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")}
    assert len(files) == 3
    forgetting.work(config, tmp_path, Console(file=out, width=200))  # nothing is done twice
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")} == files
    assert np.isfinite([float(x) for x in said.split("before")[1].split()[3:6]]).all()
