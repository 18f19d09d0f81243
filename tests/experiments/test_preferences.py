"""Preference data from a tiny writer: killed and resumed, ranked by rewards, judges and people, and trained on."""

import io
import json
import sys
import types

import jax
import pytest
from rich.console import Console

from configs import preferences as settings_of
from experiments import preferences
from research.data import build
from research.data.huggingface_tokenizer import from_wordpiece
from research.data.rankings import Sample
from research.evaluation.judge import Form, NoAnswer, compare, rate
from research.interop import save_pretrained
from research.models import build as build_model
from research.models import preset

WORDS = ["say", "what", "a", "b", "c", "d", "e", "f", "g", "h"]
CHAT = [{"role": "user", "content": "say d"}]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A decoder with random weights, as a folder: it writes words at random."""
    folder = tmp_path_factory.mktemp("writer")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = from_wordpiece(folder / "vocab.txt")
    sizes = {"vocab_size": 15, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 32}
    config = preset("gpt2").replace(**sizes, bos_id=2, eos_id=3)
    save_pretrained(folder / "model", config, jax.jit(build_model(config).init)(jax.random.key(0)), tokenizer=tokenizer)
    return folder / "model"


@pytest.fixture
def config(writer, tmp_path):
    """Six prompts with four short completions each, and two rules that rank them."""
    rows = [{"prompt": f"say {word}", "id": f"p{i}"} for i, word in enumerate(WORDS[2:8])]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"writer": str(writer), "data": str(tmp_path), "prompts": str(tmp_path / "prompts.jsonl")}
    changes |= {"completions": 4, "new_tokens": 4, "batch_size": 8, "portion": 2}
    return settings_of.get_config("tiny").to_dict() | changes


def run(config, folder):
    console = Console(file=io.StringIO(), width=200)
    folder.mkdir(exist_ok=True)
    preferences.work(config, folder, console)
    return console.file.getvalue()


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_run_goes_on_to_the_same_pairs_and_asks_for_nothing_twice(config, tmp_path, monkeypatch):
    said = run(config, tmp_path / "whole")
    pairs = rows(tmp_path / "whole" / "pairs.jsonl")
    assert f"{len(pairs)} pairs" in said and "Krippendorff's alpha" in said and pairs
    for row in pairs:  # the reward "count a" and "count e", as shares of two votes
        votes = [row["chosen"].count(x) - row["rejected"].count(x) for x in "ae"]
        assert row["preferred"] == sum(1.0 if v > 0 else 0.5 if v == 0 else 0.0 for v in votes) / 2
    asked, write = [], preferences.Local.__call__

    def dies(self, prompts):
        asked.extend(name for name, _ in prompts)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return write(self, prompts)

    monkeypatch.setattr(preferences.Local, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "killed")
    run(config, tmp_path / "killed")
    assert asked == ["p0", "p1", "p2", "p3", "p2", "p3", "p4", "p5"]
    for name in ("pairs", "conflicts"):
        assert rows(tmp_path / "killed" / f"{name}.jsonl") == rows(tmp_path / "whole" / f"{name}.jsonl")
    # Half a portion's ranks were lost: those alone are asked for again.
    ranked = tmp_path / "killed" / "ranked_a.jsonl"
    lines = ranked.read_text().splitlines(keepends=True)
    ranked.write_text("".join(lines[:-1]) + lines[-1][:10])
    run(config, tmp_path / "killed")
    assert ranked.read_text() == "".join(lines) and asked[8:] == []
    with pytest.raises(ValueError, match=r"samples\.jsonl was made with temperature=1\.0 \(now 0\.5\)"):
        run(config | {"temperature": 0.5}, tmp_path / "killed")


def test_people_fill_in_a_form_and_nothing_they_did_is_lost(config, tmp_path):
    form = tmp_path / "ann.jsonl"
    config |= {"labellers": {"ann": {"people": str(form)}}, "agreement": False}
    assert "nothing is ranked yet" in run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "pairs.jsonl").exists()
    given = rows(form)
    given[1]["ranks"] = list(range(1, len(given[1]["ranks"]) + 1))
    form.write_text("".join(json.dumps(row) + "\n" for row in given))
    assert "1 rankings by ['ann']" in run(config, tmp_path / "run")
    first = given[1]["completions"]
    found = rows(tmp_path / "run" / "pairs.jsonl")
    assert [(row["chosen"], row["rejected"]) for row in found] == [
        (x, y) for i, x in enumerate(first) for y in first[i + 1 :]
    ]
    assert rows(form) == given
    with pytest.raises(ValueError, match=r"agreement needs at least two labellers, given \['ann'\]"):
        run(config | {"agreement": True}, tmp_path / "run")
    form.write_text(form.read_text() + json.dumps({"id": "p99", "labeller": "ann", "ranks": [1, 2]}) + "\n")
    with pytest.raises(ValueError, match=r"ann\.jsonl, row 7: no prompt has the id 'p99'"):
        run(config, tmp_path / "run")


def test_judges_rank_by_ratings_or_by_wins_in_both_orders(monkeypatch):
    def judge(prompts):
        """Likes b's; its verdicts favour the first answer where both are alike."""
        out = []
        for prompt in prompts:
            if "[[A]]" in prompt:
                first, second = (prompt.split(mark)[1].count("b") for mark in ("<1>", "<2>"))
                out.append("[[A]]" if first >= second else "[[B]]")
            else:
                out.append(f"[[{1 + prompt.split('[X]')[1].count('b')}]]" if "??" not in prompt else "I cannot say")
        return out

    module = types.ModuleType("a_judge")
    module.judge = judge
    monkeypatch.setitem(sys.modules, "a_judge", module)
    monkeypatch.setattr(preferences, "rate", lambda j, e: rate(j, e, Form("one", "single", "{question} [X]{answer}")))
    both = Form("two", "pairwise", "{question} say [[A]] or [[B]] <1>{answer_a}<1> <2>{answer_b}<2>")
    monkeypatch.setattr(preferences, "compare", lambda j, e: compare(j, e, both))
    samples = [Sample("x", "Q", ("b", "bb", "c", "dd")), Sample("y", CHAT, ("c b", "d b b"))]
    single, pairwise = (
        preferences.make_rank("j", {"judge": "a_judge:judge", "form": form}, {}, None, None)[0]
        for form in preferences.FORMS[::-1]
    )
    # Equal counts of b are a tie for both: the pairwise judge contradicts itself when the order changes.
    assert single(samples) == pairwise(samples) == [(2, 1, 3, 3), (2, 1)]
    assert single([Sample("z", "Q", ("b", "b ??", "c"))]) == [(1, None, 2)]


def test_a_served_writer_that_fails_loses_no_finished_portion(config, tmp_path, monkeypatch):
    calls = []

    class Fake:
        def __init__(self, url, model, temperature, max_tokens):
            assert (url, max_tokens) == ("http://here/v1", 4)

        def __call__(self, prompts):
            calls.append(list(prompts))
            texts = [f"{prompt} {'a' * (i % 3)}" for i, prompt in enumerate(prompts)]
            return texts if len(calls) != 2 else [*texts[1:], NoAnswer("timed out")]

    monkeypatch.setattr(preferences, "Address", Fake)
    config |= {"writer": {"url": "http://here/v1", "model": "m"}}
    with pytest.raises(ConnectionError, match="1 of 8 completions never came; the first: timed out"):
        run(config, tmp_path / "run")
    said = run(config, tmp_path / "run")
    assert [len(asked) for asked in calls] == [8] * 4 and calls[1] == calls[2] and calls[0][:4] == ["say a"] * 4
    assert "left out: empty or equal" in said and len(rows(tmp_path / "run" / "samples.jsonl")) == 7
    with pytest.raises(ValueError, match="behind an address needs `prompts`"):
        run(config | {"prompts": ""}, tmp_path / "other")


def test_the_pairs_are_what_preference_training_reads(config, tmp_path):
    run(config, tmp_path / "run")
    path = tmp_path / "run" / "pairs.jsonl"
    section = {"kind": "examples", "path": str(path), "objective": "preference", "length": 16, "heldout": 0.0}
    tokenizer = preferences.load(config["writer"], None, "f32").tokenizer
    read = build.build_rows(section, tokenizer)
    assert len(read) == len(rows(path))
    for i, row in enumerate(rows(path)):
        assert float(read.row(i, None)["preferred"]) == row["preferred"]


def test_what_the_command_refuses(config, tmp_path):
    for changes, message in (
        ({"labellers": {}}, "there is no labeller"),
        ({"labellers": {"x": {"reward": "count a", "people": "f"}}}, r"labeller 'x' is one of \['scorer', 'reward'"),
        ({"completions": 1}, "at least 2 completions of a prompt, asked for 1"),
        ({"labellers": {"x": {"scorer": str(tmp_path)}}}, r"holds no text scorer: scorer\.json is missing"),
        ({"labellers": {"x": {"reward": "count z"}}, "agreement": False}, "pairs that are all ties"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config | changes, tmp_path / "run")
