"""Stages are done once, remembered under what decides them, and go on where they were stopped."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import playground as playground_config
from experiments import lifecycle, playground
from experiments.loading import load
from experiments.stages import STAGES, Interrupted, Stage, pairs, ppo, reward, run_all, smaller, tokenizer
from experiments.stages.documents import without_repeats
from experiments.stages.stage import check, read_lines
from research.apps.page.runs import found
from research.data.python_docs import Document
from research.data.sources import stack
from tests.apps.server.scripted import Scripted

ROOT = Path(__file__).resolve().parents[2]


def chain(calls, *, stop_at: int | None = None) -> tuple[Stage, ...]:
    """Two stages: one counts lines in a file up to config.size, the other doubles the count."""

    def count(config, inputs, folder):
        file = folder / "lines"
        file.touch()
        while (n := len(file.read_text().splitlines())) < config["size"]:
            if n == stop_at:
                raise Interrupted("stopped")
            calls.append(f"line {n}")
            with file.open("a") as stream:
                stream.write(f"{n}\n")
        return {"count": n}

    def double(config, inputs, folder):
        calls.append("double")
        return {"twice": config["factor"] * inputs["count"].result["count"]}

    return (
        Stage("count", "Count", count, reads=("size",), makes=("lines",)),
        Stage("double", "Double", double, needs=("count",), reads=("factor",)),
    )


def test_stages_are_done_once_and_redone_when_what_they_read_changes(tmp_path):
    calls = []
    config = {"size": 2, "factor": 2, "unread": 0}
    assert run_all(chain(calls), config, tmp_path)["double"].result == {"twice": 4}
    assert run_all(chain(calls), config | {"unread": 1}, tmp_path)["double"].result == {"twice": 4}
    assert calls == ["line 0", "line 1", "double"]
    assert run_all(chain(calls), config | {"factor": 3}, tmp_path)["double"].result == {"twice": 6}
    assert calls == ["line 0", "line 1", "double", "double"]
    # A changed input changes the key of what needs it, though its own config is the same.
    run_all(chain(calls), config | {"size": 1}, tmp_path)
    assert calls[4:] == ["line 0", "double"]


def test_an_interrupted_stage_goes_on_in_its_own_folder(tmp_path):
    calls = []
    config = {"size": 3, "factor": 2}
    with pytest.raises(Interrupted):
        run_all(chain(calls, stop_at=2), config, tmp_path)
    done = run_all(chain(calls), config, tmp_path)
    assert calls == ["line 0", "line 1", "line 2", "double"]
    assert len(list(tmp_path.glob("count-*"))) == 1
    assert done["count"].seconds >= json.loads((done["count"].folder / "spent.json").read_text())[0]


def test_a_stage_whose_product_was_deleted_runs_again(tmp_path):
    calls = []
    config = {"size": 1, "factor": 2}
    (run_all(chain(calls), config, tmp_path)["count"].folder / "lines").unlink()
    run_all(chain(calls), config, tmp_path)
    assert calls == ["line 0", "double", "line 0"]


def test_a_promised_file_that_was_not_made_is_an_error(tmp_path):
    stage = Stage("empty", "", lambda config, inputs, folder: {}, makes=("thing",))
    with pytest.raises(RuntimeError, match=r"'thing'.*do not exist"):
        run_all((stage,), {}, tmp_path)


@pytest.mark.parametrize(
    ("stages", "config", "message"),
    [
        ((Stage("a", "", print, needs=("b",)),), {}, "'a' needs \\['b'\\]"),
        ((Stage("a", "", print, reads=("x",)),), {"y": 1}, "reads \\['x'\\].*\\['y'\\]"),
    ],
)
def test_a_wrong_chain_is_refused_before_anything_runs(stages, config, message):
    with pytest.raises(ValueError, match=message):
        check(stages, config)


def test_repeated_paragraphs_are_dropped_across_documents():
    long = "a paragraph that is long enough to be worth remembering"
    documents = [Document("a", f"Title\n\n{long}"), Document("b", f"Note\n\n  {long}\n\nNote"), Document("c", long)]
    kept = list(without_repeats(documents, set()))
    assert kept == [Document("a", f"Title\n\n{long}"), Document("b", "Note\n\nNote")]


def test_stages_of_the_main_job_fit_its_config():
    from configs.lifecycle import get_config

    check(STAGES, get_config().to_dict())
    with pytest.raises(ValueError, match=r"'huge'.*'tiny'"):
        get_config("huge")


def test_small_forms_are_checked_before_the_job_begins():
    from configs.lifecycle import get_config

    config = get_config("tiny").to_dict()
    lifecycle.check(config)
    config["distil"]["forms"]["half the columns, distilled"]["recover"] = "distill"
    with pytest.raises(ValueError, match="'half the columns, distilled': unknown recover 'distill', did you mean 'dis"):
        lifecycle.check(config)


def test_a_model_that_differs_in_its_bits_alone_is_trained_once(monkeypatch, tmp_path):
    made, form = [], {"prune": (), "stages": 1, "slim": {"columns": 0.5}, "recover": "distil", "policy": "f32"}
    forms = {"plain": form | {"quantize": ()}, "int8": form | {"quantize": ({"method": "int8"},)}}
    forms["whole"] = forms["plain"] | {"slim": {}}
    config = {"model": {}, "quantize": {}, "distil": {"forms": forms, "seed": 0, "batch_size": 1, "recovery": {}}}
    monkeypatch.setattr(smaller.quantize.Ruler, "of", lambda *given: SimpleNamespace(pieces=None))
    monkeypatch.setattr(smaller, "subject_of", lambda *given: None)
    monkeypatch.setattr(smaller.forms, "smaller", lambda subject, given, seed: made.append(given["slim"]) or (0, 0))
    monkeypatch.setattr(smaller, "measured", lambda ruler, given, *model: {"bytes": len(given["quantize"])})
    found = smaller.DISTIL.run(config, {}, tmp_path)["forms"]
    assert made == [{"columns": 0.5}, {}] and [found[name]["bytes"] for name in forms] == [0, 1, 0]
    assert smaller.DISTIL.run(config, {}, tmp_path)["forms"] == found and len(made) == 2, "remembered, form by form"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The tiny main job, started twice."""
    workdir = tmp_path_factory.mktemp("life")
    command = [sys.executable, "-m", "experiments.lifecycle", "--config=configs/lifecycle.py:tiny"]
    command += [f"--workdir={workdir}"]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2)]
    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
    return workdir, [run.stdout for run in runs]


@pytest.mark.slow
def test_main_job_writes_its_report_and_says_where(job):
    workdir, (first, _) = job
    assert str(workdir / "report.html") in first.replace("\n", "")
    page = (workdir / "report.html").read_text()
    for part in (
        "Bits per byte",
        "xz primed",
        "Kneser-Ney",
        "ROUGE-L",
        "nearest training example",
        "after LoRA",
        "after prompt tuning",
        "forgotten",
        "Zero-shot against few-shot",
        "Robustness",
        "tokens per second",
        "Fewer bits, fewer numbers",
        "NF4",
        "Wanda 50 %, trained",
        "half the columns, distilled, int8",
        "at rest",
        "Memory account",
        "gold: ROUGE-L",
        "after PPO",
        "after DPO",
        "best of 2 by the reward",
        "longer answer",
        "Programs and actions",
        "greedy",
        "top_p",
    ):
        assert part in page
    assert page.count("<svg") == 15 and not re.search(r'(src|href)="(?!#)', page)


@pytest.mark.slow
def test_main_job_remembers_every_stage(job):
    _, (first, second) = job
    assert "done beside" in " ".join(first.split()), "the second process did nothing"
    assert " ".join(second.split()).count("done before") == len(STAGES)  # a narrow terminal breaks lines


@pytest.mark.slow
def test_the_page_opens_what_the_main_job_made(job, tmp_path):
    _, (first, _) = job
    given = re.search(r"--config=configs/playground.py:(\S+) --config.runs=(\S+)", " ".join(first.split()))
    config = playground_config.get_config(given[1])
    assert [part for part in playground_config.PARTS if config[part]] == list(playground_config.PARTS)
    config.runs = given[2]
    services = playground.Page(config.to_dict(), tmp_path).services(Scripted())
    answer = services.ask("What does shutil.which do?")
    assert answer.text and answer.passages
    shown = services.board.next("ann")
    assert shown["of"] == 8 and len(shown["sample"]["completions"]) > 1
    assert {name.partition("-")[0] for name in found(services.runs)} >= {"pretrain", "tune", "lora", "ppo"}
    loaded = load(config.model, None, "f32")
    assert loaded.tokenizer.vocab_size == loaded.model.config.vocab_size == 512


@pytest.fixture(scope="module")
def finished(job):
    """The config of the tiny job and what its stages left."""
    from configs.lifecycle import get_config

    config = get_config("tiny").to_dict()
    return config, run_all(STAGES, config, job[0], console=Console(quiet=True))


@pytest.mark.slow
def test_the_reward_of_two_texts_is_what_the_reward_model_was_trained_on(finished):
    config, done = finished
    pieces = tokenizer.load(done["tokenizer"])
    scorer = reward.load(done["reward"], config, pieces)
    longest = lambda pair: max(len(pieces.encode(pair[name])) for name in ("chosen", "rejected"))  # noqa: E731
    held = read_lines(done["pairs"].folder / "test.jsonl")
    held = [p for p in held if len(pieces.encode(p["prompt"])) + longest(p) + 2 <= scorer.length][:3]
    rows = pairs.rows(done["pairs"], "test", pieces, scorer.length)
    flat = {
        name: x.reshape(-1, x.shape[-1]) for name, x in stack([rows.row(i) for i in range(3)]).items() if x.ndim > 2
    }
    model, params = scorer.model, scorer.params
    expected = jax.jit(lambda batch: model.classify(params, model.apply(params, batch), batch))(flat)
    both = [(pair["prompt"], pair[name]) for pair in held for name in ("chosen", "rejected")]
    found = scorer(*zip(*both, strict=True)) * scorer.std + scorer.mean
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found) > 1e-5


@pytest.mark.slow
def test_ppo_of_the_main_job_goes_on_where_it_was_interrupted(finished, tmp_path, monkeypatch):
    config, done = finished
    seen = []

    def interrupt(bar, steps, message):
        seen.append(message)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ppo.Steps, "advance", interrupt)
    given = {name: config[name] for name in ppo.STAGE.reads}, {name: done[name] for name in ppo.STAGE.needs}, tmp_path
    with pytest.raises(KeyboardInterrupt):
        ppo.run(*given)
    again = json.loads(json.dumps(ppo.run(*given)))
    assert seen[1] == seen[2] and len(seen) == 3
    assert again == done["ppo"].result
