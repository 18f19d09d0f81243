"""HumanEval in the sandbox: its own solutions pass, its own example samples score what it says."""

import json

import pytest

from research.apps.prompting import Outcome, Task
from research.apps.sandbox import isolation
from research.evaluation.benchmarks import METRICS, humaneval, load, scored

needs_sandbox = pytest.mark.skipif(isolation().level == "unsafe", reason=isolation().reason)


@needs_sandbox
def test_published_solutions_pass_and_nothing_else(data_dir):
    [task] = load("humaneval", data_dir)
    few = Task(task.name, task.items[:20], task.metrics)
    solved = [Outcome(item.id, None, text=item.answers[0]) for item in few.items]
    judged = humaneval.run_programs(few, solved)
    assert [outcome.prediction for outcome in judged] == ["passed"] * 20
    assert [outcome.text for outcome in judged] == [outcome.text for outcome in solved]
    wrong = ["    pass\n", "    exit(0)\n", "    while True: pass\n", "    return (\n"]
    outcomes = [Outcome(item.id, None, text=text) for item, text in zip(few.items, wrong, strict=False)]
    assert {outcome.prediction for outcome in humaneval.run_programs(few, outcomes)} == {"failed"}


@needs_sandbox
def test_a_completion_may_begin_with_its_line_break(data_dir):
    """Models that read the prompt without its last line break write one."""
    [task] = load("humaneval", data_dir)
    item = task.items[2]
    [judged] = humaneval.run_programs(task, [Outcome(item.id, None, text="\n" + item.answers[0])])
    assert judged.prediction == "passed"


@needs_sandbox
def test_example_samples_score_what_their_authors_say(data_dir):
    """Six samples, three right: pass@1 is 0.4999999999999999 in the repository's own words."""
    folder = data_dir / "humaneval"
    items = humaneval.read_problems(folder / "example_problem.jsonl")
    task = Task("example", items, ("pass@1",))
    lines = (folder / "example_samples.jsonl").read_text().splitlines()
    samples = [Outcome(row["task_id"], None, text=row["completion"]) for row in map(json.loads, lines)]
    judged = humaneval.run_programs(task, samples)
    assert METRICS["pass@1"](task, judged) == 0.4999999999999999
    assert scored(task, judged, samples=10)["pass@1"].mean == 0.4999999999999999


def test_pass_at_k_is_the_mean_over_problems(data_dir):
    [task] = load("humaneval", data_dir)
    two = Task(task.name, task.items[:2], task.metrics)
    right = {two.items[0].id: 3, two.items[1].id: 0}
    outcomes = [Outcome(key, "passed" if i < c else "failed") for key, c in right.items() for i in range(10)]
    assert METRICS["pass@1"](two, outcomes) == pytest.approx(0.15)
    assert METRICS["pass@10"](two, outcomes) == pytest.approx(0.5)
