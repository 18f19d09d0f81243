"""The sweep over examples in the prompt: k ends with the window, nothing is asked twice, intervals are metrics' own."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from configs.shots_sweep import get_config
from experiments import shots_sweep
from experiments.loading import Loaded
from research.apps.prompting import Item, Outcome, Task
from research.data.byte_tokenizer import ByteTokenizer
from research.evaluation.benchmarks import scored
from research.models import build
from tests.models.conftest import tiny_config

FILE = {"file": "rows.jsonl", "template": "{{ text }} ||| {{ label }}", "choices": "no ||| yes"}


def room(max_length, window=0):
    """A model that is never run: only how much it holds counts."""
    model = build(tiny_config("llama", max_length=max_length, vocab_size=300))
    return shots_sweep.room_of(Loaded(model, {}, ByteTokenizer(), (), {}, ()), window)


@pytest.fixture
def task(tmp_path):
    rows = [{"text": f"{'good' if i % 3 else 'bad'} film {i:02}?", "label": "yes" if i % 3 else "no"} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return shots_sweep.task_of("films", FILE, tmp_path)


def test_k_ends_with_the_window_or_the_data(task):
    # A question with its longest answer is 16 or 17 bytes.
    sizes = [len(item.solved) + 2 for item in task.pool]
    assert (min(sizes), max(sizes)) == (17, 19)
    ks = [0, 1, 2, 4, 8, 16]
    assert shots_sweep.ks_of(room(64), task, ks, "random", 0) == [0, 1, 2, 4]  # 4 examples alone are 68 bytes
    assert shots_sweep.ks_of(room(512), task, ks, "random", 0) == [0, 1, 2, 4, 8]  # nine rows, one of them asked
    assert shots_sweep.ks_of(room(64, window=24), task, ks, "nearest", 0) == [0, 1]
    assert [prompt.used for prompt in shots_sweep.prompts_of(room(64), task, 4, "random", 0)] == [2] * 9


def test_questions_that_do_not_fit_are_left_out(task):
    long = replace(task, items=[Item("x", "z" * 100, (" no", " yes"), (0,)), *task.items])
    assert shots_sweep.that_fit(room(64), long, 5).items == task.items[:4]
    with pytest.raises(ValueError, match="no question fits: films: item 'x' needs 104 tokens"):
        shots_sweep.that_fit(room(64), replace(long, items=long.items[:1]), 5)


def test_written_questions_show_the_same_examples(task):
    free = shots_sweep.written(task)
    assert [item.solved for item in free.pool] == [item.solved for item in task.pool]
    assert not any(item.choices or item.gold for item in free.items) and free.items[1].answers == ("yes",)
    both = [shots_sweep.prompts_of(room(512), one, 4, "balanced", 1) for one in (task, free)]
    assert [p.text for p in both[0]] == [p.text for p in both[1]]


def test_intervals_are_those_of_the_metric_and_seeds_are_averaged():
    items = [Item(str(i), "q", (" a", " b"), (i % 2,)) for i in range(20)]
    task = Task("t", items, metrics=("f1",))
    draw = np.random.default_rng(0)
    runs = [[Outcome(item.id, int(x)) for item, x in zip(items, draw.integers(2, size=20), strict=True)] for _ in "ab"]
    rows = [shots_sweep.METRICS["f1"].rows(task, run).tolist() for run in runs]
    alone = [shots_sweep.joined("f1", [row]) for row in rows]
    np.testing.assert_allclose(alone, [scored(task, run)["f1"] for run in runs])
    both = shots_sweep.joined("f1", rows)
    assert both.mean == pytest.approx((alone[0].mean + alone[1].mean) / 2) and both.low < both.mean < both.high


def test_the_most_common_answer_needs_no_model(task):
    assert shots_sweep.without_model(task) == pytest.approx(6 / 9)
    assert shots_sweep.without_model(shots_sweep.written(task)) == pytest.approx(6 / 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: shots_sweep.check(get_config().to_dict() | {"how": ["nearst"]}),
            "unknown how 'nearst', did you mean",
        ),
        (lambda p: shots_sweep.check(get_config().to_dict() | {"forms": ["chat"]}), "have .'likelihood', 'generation'"),
        (lambda p: shots_sweep.check(get_config().to_dict() | {"k": [-1]}), "at least one task, one seed and one k"),
        (lambda p: shots_sweep.task_of("a", {"path": "x"}, p), r"a 'benchmark' or a 'file'.*given \['path'\]"),
        (lambda p: room(64, window=65), "window=65 tokens; the model holds 64, expected 1"),
        (lambda p: get_config("small"), "unknown argument 'small'"),
    ],
)
def test_refusals(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_the_whole_command_on_the_real_model(data_dir, tmp_path):
    out = io.StringIO()
    config = get_config("tiny").to_dict() | {"data": str(data_dir), "limit": 3, "k": (0, 64)}
    shots_sweep.work(config, tmp_path, Console(file=out, width=120))
    said = out.getvalue()
    assert "sst2: acc of 3 questions" in said and "likelihood" in said and "generation" in said
    for form in ("likelihood", "generation"):
        assert (tmp_path / f"shots_sst2_{form}.png").stat().st_size > 1000
    files = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")}
    assert len(files) == 4
    full = json.loads((tmp_path / "sst2-likelihood-random-64-0.json").read_text())
    assert 0 < full["used"] < 64 and full["dropped"] == 3 * 64 - round(3 * full["used"]) and len(full["rows"]) == 3
    shots_sweep.work(config, tmp_path, Console(file=out, width=120))  # nothing is asked twice
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")} == files
