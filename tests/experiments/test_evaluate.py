"""The evaluation command: killed and started again it gives the same table and asks each question once."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from rich.console import Console

from configs.evaluate import get_config
from experiments.evaluate import drawn, read_tasks, work
from research.apps.prompting import Outcome
from research.apps.sandbox import isolation
from research.data.byte_tokenizer import ByteTokenizer
from research.evaluation.benchmarks import METRICS, load
from research.evaluation.paired import paired_bootstrap
from research.interop.run import save_run
from research.models import ModelConfig, build

ROOT = Path(__file__).resolve().parents[2]
REVIEWS = [("good fun", 1), ("dull", 0), ("a fine film", 1), ("weak and slow", 0), ("great", 1), ("bad", 0)] * 4
FILES = 4  # two tasks, with and without an example


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a few reviews and sums."""
    folder = tmp_path_factory.mktemp("data")
    rows = [f"{text} {i} \t{label}" for i, (text, label) in enumerate(REVIEWS)]
    (folder / "sst2").mkdir()
    other = [f"seen before, {row}" for row in rows[:7]]
    for name, some in (("dev", rows), ("train", other)):
        (folder / "sst2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *some]) + "\n")
    (folder / "svamp").mkdir()
    sums = [{"input": f"What is {i} and {i}?", "target": 2.0 * i} for i in range(8)]
    (folder / "svamp" / "svamp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    sizes = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 192}
    config = ModelConfig(vocab_size=ByteTokenizer().vocab_size, **sizes)
    made = []
    for seed, name in enumerate(("first", "second")):
        folder = save_run(tmp_path_factory.mktemp(name), config, build(config).init(jax.random.key(seed)))
        made.append({"name": name, "folder": str(folder), "tokenizer": "bytes"})
    return tuple(made)


def config(data, models, **changes):
    found = get_config("tiny").to_dict() | {"models": models, "data": str(data), "limit": 0, "portion": 1}
    return found | {"samples": 50} | changes


def evaluated(settings, folder):
    """What was printed and the stored results."""
    console = Console(file=io.StringIO(), width=160)
    work(settings, folder, console)
    return console.file.getvalue(), json.loads((folder / "results.json").read_text())


def rows(folder):
    """Rows of every file by its name; the line of settings left out."""
    return {
        p.name: [json.loads(line) for line in p.read_text().splitlines()[1:]] for p in sorted(folder.glob("*.jsonl"))
    }


@pytest.fixture(scope="module")
def whole(data, models, tmp_path_factory):
    """(folder, printed, results) of an evaluation that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *evaluated(config(data, models), folder)


def test_a_killed_run_goes_on(data, models, whole, tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.evaluate",
        "--config=configs/evaluate.py:tiny",
        f"--workdir={tmp_path}",
    ]
    changes = {"models": models, "data": data, "limit": 0, "portion": 1, "samples": 50}
    process = subprocess.Popen(
        [*command, *(f"--config.{k}={v}" for k, v in changes.items())], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    file = tmp_path / "answers" / "first-glue_sst2-1.jsonl"
    while process.poll() is None and not (file.is_file() and file.read_text().count("\n") > 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    before = file.read_text()
    assert 4 < len(before.splitlines()) < len(REVIEWS) + 1
    file.write_text(before.rstrip("\n")[:-20])  # as if the last line had not been finished
    _, results = evaluated(config(data, models), tmp_path)
    assert results == whole[2]
    found, wanted = rows(tmp_path / "answers"), rows(whole[0] / "answers")
    assert found == wanted and len(found) == 2 * FILES
    for name, some in found.items():
        ids = [row["key"] for row in some]
        assert len(ids) == len(set(ids)) == (len(REVIEWS) if "sst2" in name else 8)
    assert file.read_text().startswith(before[: before.rindex("\n", 0, -1)])  # what was there stayed


@pytest.mark.skipif(isolation().level == "unsafe", reason=isolation().reason)
def test_programs_run_in_the_sandbox(models, tmp_path, monkeypatch):
    """A task whose answers are programs, with what a model might write put in its place."""
    (tmp_path / "humaneval").mkdir()
    problem = {"prompt": "def f():", "canonical_solution": " return 1", "test": "def check(f): assert f() == 1"}
    rows_ = [{"task_id": name, "entry_point": "f", **problem} for name in ("a", "b", "c", "d")]
    (tmp_path / "humaneval" / "HumanEval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    texts = {"a": " return 1", "b": " return 2", "c": " exit(0)", "d": " open('/etc/passwd'); return 1"}

    def write(model, params, tokenizer, task, asked, **options):
        return [Outcome(one.item.id, None, texts[one.item.id]) for one in asked]

    monkeypatch.setattr("experiments.evaluate.ask.write", write)
    settings = config(tmp_path, models[:1], tasks=("humaneval",), shots=(0,))
    _, results = evaluated(settings, tmp_path / "run")
    [stored] = rows(tmp_path / "run" / "answers").values()
    assert {row["key"]: row["prediction"] for row in stored} == {
        "a": "passed",
        "b": "failed",
        "c": "failed",
        "d": "failed",
    }
    assert results["scores"][0]["metric"] == "pass@1" and results["scores"][0]["mean"] == 0.25


def test_started_again_nothing_is_asked(data, models, whole, monkeypatch):
    monkeypatch.setattr("experiments.evaluate.partial", lambda *a, **k: pytest.fail)
    printed, results = evaluated(config(data, models), whole[0])
    assert results == whole[2]
    assert "first" in printed and "Paired bootstrap" in printed and "glue/sst2" in printed


def test_the_table_is_made_of_the_stored_lines(data, whole):
    folder, _, results = whole
    stored = rows(folder / "answers")
    for score in results["scores"]:
        some = stored[f"{score['model']}-{score['task'].replace('/', '_')}-{score['shots']}.jsonl"]
        right = [(r["prediction"] in r["gold"]) if r["choices"] else r["prediction"] in r["answers"] for r in some]
        assert score["mean"] == pytest.approx(sum(right) / len(some)) and score["n"] == len(some)
        assert score["low"] <= score["mean"] <= score["high"]
        assert score["unread"] == sum(r["prediction"] is None for r in some)
        for row in some:
            assert row["examples"] == score["shots"]
            assert (
                row["prediction"] == row["scores"].index(max(row["scores"])) if row["choices"] else row["scores"] == []
            )
            assert row["prompt"].count("Answer:") == 1 + score["shots"]
    task = load("glue/sst2", data)[0]
    test = next(t for t in results["tests"] if t["task"] == "glue/sst2" and t["shots"] == 0)
    both = []
    for name in ("first", "second"):
        chosen = {r["key"]: r for r in stored[f"{name}-glue_sst2-0.jsonl"]}
        both.append([float(chosen[item.id]["prediction"] in item.gold) for item in task.items])
    assert METRICS[task.metrics[0]] and test["p"] == paired_bootstrap(*both, samples=50).p


def test_other_settings_are_refused(data, models, whole):
    before = rows(whole[0] / "answers")
    with pytest.raises(ValueError, match=r"first-glue_sst2-0.jsonl was made with .*seed=0 \(now 1\).*choose another"):
        evaluated(config(data, models, seed=1), whole[0])
    assert rows(whole[0] / "answers") == before


def test_a_limit_draws_the_same_questions(data):
    task = load("glue/sst2", data)[0]
    small, large = drawn(task, 5, 3), drawn(task, 9, 3)
    assert len(small) == 5 and {i.id for i in small} < {i.id for i in large}
    assert drawn(task, 5, 3) == small != drawn(task, 5, 4)
    assert drawn(task, 0, 0) == list(task.items)


def test_a_task_with_an_answer_longer_than_the_window_is_left_out_with_a_line(data, models, tmp_path):
    answers, question = ("yes", "no " * 70), {"label": 1, "question": "is it so?"}
    kept = [{**question, "answers": answers, "wanted": 0}, {**question, "answers": ("a", "b"), "wanted": 1}]
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    long = {
        "file": str(file),
        "template": "{{ question }} ||| {{ answers[wanted] }}",
        "choices": "{{ answers|join('|||') }}",
    }
    settings = config(data, models[:1], tasks=(long, "glue/sst2"), shots=(0,))
    printed, found = evaluated(settings, tmp_path / "run")
    assert "long is left out for first: item 'long/0' has an answer of 210 tokens, the model holds 192" in printed
    assert {score["task"] for score in found["scores"]} == {"glue/sst2"}
    with pytest.raises(ValueError, match=r"nothing is left to ask first of \['long'\]"):
        evaluated(config(data, models[:1], tasks=(long,), shots=(0,)), tmp_path / "none")


def test_rows_of_your_own_are_a_task(data, models, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"q": f"{i} + 1?", "a": i + 1}) + "\n" for i in range(3)))
    mine = {"file": str(file), "template": "{{ q }} ||| {{ a }}", "max_new_tokens": 2}
    _, found = evaluated(config(data, models[:1], tasks=(mine,), shots=(1,), order="first"), tmp_path / "run")
    answers = rows(tmp_path / "run" / "answers")["first-mine-1.jsonl"]
    assert [row["prompt"].partition("?")[0] for row in answers] == ["1 + 1", "0 + 1", "0 + 1"]
    assert found
    with pytest.raises(ValueError, match=r"at least file and template; got \{'file': .*, 'templte'"):
        read_tasks(config(data, models, tasks=({"file": str(file), "templte": ""},)), data)
