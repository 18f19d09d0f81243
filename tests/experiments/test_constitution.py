"""The whole of Constitutional AI with a model that is too small to learn: it runs, resumes and refuses; its rules."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.constitution import get_config
from experiments import constitution as experiment
from experiments.household import (
    INSULTS,
    NAMES,
    PRINCIPLES,
    THINGS,
    broken,
    claims,
    demonstrations,
    draw_answer,
    is_right,
    questions,
)
from research.apps.constitution_files import read_constitution
from research.models import preset

PATH = "configs/constitution.json"


@pytest.fixture(scope="module")
def constitution():
    return read_constitution(PATH)


def by_hand(answer):
    """The three rules, word by word."""
    found = set()
    for word in re.split(r"[ ,.]+", answer):
        if word and word == word.upper() and word != word.lower() and len(word) > 1:
            found.add("calm")
        if word.lower() in INSULTS:
            found.add("kind")
        if word.lower() in [name.lower() for name in NAMES]:
            found.add("private")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_rules_and_what_takes_a_fault_away(seed):
    generator = np.random.default_rng(seed)
    every = questions(held_out=False) + questions(held_out=True)
    faults = []
    for _ in range(400):
        question = every[int(generator.integers(len(every)))]
        answer = draw_answer(question, generator, 0.4)
        found = set(broken(answer.text))
        assert found == by_hand(answer.text) and is_right(question, answer.text)
        faults.append([name in found for name in PRINCIPLES])
        for name in PRINCIPLES:
            assert set(broken(answer.without(name).text)) == found - {name}
        other = every[int(generator.integers(len(every)))]
        same = (other.thing, other.kind) == (question.thing, question.kind)
        assert is_right(other, answer.text) == same
    assert np.allclose(np.mean(faults, 0), 0.4, atol=0.08)  # 3 standard errors


def test_a_quarter_of_the_wordings_is_held_out(constitution):
    learned, held_out = ({q.prompt for q in questions(held_out=held)} for held in (False, True))
    assert len(learned) == 6 * len(THINGS) and len(held_out) == 2 * len(THINGS) and not learned & held_out
    rows = demonstrations(constitution, 400, np.random.default_rng(0), rate=0.4, noise=0.0)
    assert not any(prompt.removesuffix("\n\nAssistant:") in row["prompt"] for row in rows for prompt in held_out)


def read_choice(row):
    """(principle, whether (A) and (B) break it, the chosen letter) of a demonstrated choice."""
    sides = re.findall(r"\([AB]\) \[\[\[(.*?)\]\]\]", row["prompt"])
    name = next(n for n, sign in zip(PRINCIPLES, ("shout", "rude", "person"), strict=True) if sign in row["prompt"])
    return name, [name in by_hand(side) for side in sides], row["completion"].strip()


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_demonstrations_are_right_but_for_their_noise(constitution, noise):
    rows = demonstrations(constitution, 2400, np.random.default_rng(1), rate=0.4, noise=noise)
    critiques, choices = [], []
    for row in rows[1::4]:
        response = row["prompt"].split("Assistant: ")[1].split("\n\nCritiqueRequest")[0]
        said, revision = re.fullmatch(r" (.*)\n\nRevisionRequest: .*\n\nRevision: (.*)", row["completion"]).groups()
        name = next(p.name for p in constitution.principles if p.critique in row["prompt"])
        critiques.append(claims(said) == (name in by_hand(response)))
        if noise == 0:
            assert by_hand(revision) == by_hand(response) - {name}
    for row in [*rows[2::4], *rows[3::4]]:
        _, breaks, letter = read_choice(row)
        if breaks[0] != breaks[1]:
            choices.append(letter == "(AB)"[1 + breaks[0]].join("()"))
    for found in (critiques, choices):
        assert np.mean(found) == pytest.approx(1 - noise, abs=0 if noise == 0 else 0.07) and len(found) > 500


@pytest.mark.slow
def test_the_whole_loop_runs_once(tmp_path, constitution):
    config = get_config("tiny").to_dict()
    experiment.work(config, tmp_path, Console(quiet=True))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert sorted(path.stem for path in kept) == sorted(
        f"{stage}-0" for stage in ("assistant", "supervised", "labels", "reward", "ppo", "dpo")
    )
    told = {path.stem: json.loads(path.read_text()) for path in kept}
    assert len(told["supervised-0"]["rounds"]) == 1 + config["revising"]["rounds"]
    assert [one["iteration"] for one in told["ppo-0"]["history"]] == [0, 1, 2]
    for row in told["labels-0"]["rows"]:
        assert row["comparison"] in constitution.comparisons and 0 <= row["preferred"] <= 1
    assert {path.name for path in tmp_path.glob("*.png")} == {"PPO_iteration.png", "revisions.png", "stages.png"}
    config["dpo"]["steps"] += 1
    experiment.work(config, tmp_path, Console(quiet=True))
    again = {path.stem for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert again == {"dpo-0"}, "what does not build on the change is not done twice"


def test_ppo_that_is_stopped_goes_on_at_its_checkpoint(tmp_path, constitution):
    config = get_config("tiny").to_dict()
    config["ppo"]["schedule"]["iterations"] = 3
    tokenizer = experiment.make_tokenizer(constitution, config, tmp_path / "tokenizer")
    described = preset("llama-7b").replace(
        vocab_size=tokenizer.vocab_size,
        **{name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")},
        **config["model"],
    )
    asked = []

    def go(folder, stop_at=0):
        """What PPO gives; ended like a process, at the reward of an iteration."""

        def reward(prompts, answers):
            asked.append(folder.name)
            if asked.count(folder.name) == stop_at:
                raise KeyboardInterrupt
            return [float(len(answer)) for answer in answers]

        loop = experiment.Loop(config, constitution, tokenizer, described, 0, folder, Console(quiet=True))
        return loop.reinforce(jax.jit(loop.model.init)(jax.random.key(0)), reward)

    expected = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts", stop_at=3)
    found = go(tmp_path / "parts")
    assert asked == ["whole"] * 3 + ["parts"] * 4, "of three iterations the last alone is done twice"
    assert found[1] == expected[1] and [one["iteration"] for one in found[1]["history"]] == [0, 1, 2, 3]
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])


def test_a_constitution_that_no_program_measures_is_refused(tmp_path):
    given = json.loads(Path(PATH).read_text())
    given["principles"]["brief"] = given["principles"].pop("calm")
    (tmp_path / "own.json").write_text(json.dumps(given))
    config = get_config("tiny").to_dict() | {"constitution": str(tmp_path / "own.json")}
    with pytest.raises(
        ValueError, match=r"programs measure \['calm', 'kind', 'private'\].*has \['kind', 'private', 'br"
    ):
        experiment.work(config, tmp_path, Console(quiet=True))
    with pytest.raises(ValueError, match="unknown argument 'tinny'"):
        get_config("tinny")
