"""Learning from answers to stories' openings: pairs are what they say, KLs meet, a killed training on pairs goes on."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.align import get_config
from experiments import align, story_ppo
from experiments.cells import run_folder
from experiments.story_world import Evaluation, World, distinct, make_reward
from research.models import build
from research.recipes.rollouts import Writer
from tests.models.conftest import tiny

QUIET = Console(quiet=True)
PROMPTS = [[1, 5, 9], [1, 4], [1, 8, 8, 3], [1, 17, 6], [1, 40, 41], [1, 12, 13]]


class Letters:
    """One letter for each id."""

    vocab_size, bos_id, eos_id = 61, 1, 2

    def decode(self, ids):
        return "".join(chr(60 + i) for i in ids)


@pytest.fixture(scope="module")
def world():
    model, params = tiny("llama", n_layers=1)
    model = build(model.config, unroll=True)
    count = lambda letters: lambda prompts, answers: [float(sum(map(a.count, letters))) for a in answers]  # noqa: E731
    writer = Writer(model, Letters(), 4, 6, (2,))
    return World(model, params, writer, PROMPTS, PROMPTS[:4], count("ABCDEFGH"), count("AB"))


@pytest.fixture(scope="module")
def pairs(world):
    return align.make_pairs(world, 4, seed=0)


def config(**tuning):
    made = get_config("tiny").to_dict()
    made["tuning"] |= {"steps": 4, "evaluate_every": 2, "batch_size": 2} | tuning
    return made


def test_the_best_and_the_worst_of_each_prompt_are_a_pair(world, pairs):
    score = lambda rows: np.array(world.reward([""] * len(rows), [Letters().decode(r) for r in rows]))  # noqa: E731
    chosen, rejected = score(pairs["chosen"]), score(pairs["rejected"])
    assert (chosen >= rejected).all() and (chosen > rejected).any()
    assert pairs["gap"] == pytest.approx((chosen - rejected).sum() / len(PROMPTS))
    again = align.make_pairs(world, 4, seed=1)
    assert again["chosen"] != pairs["chosen"] and set(map(tuple, again["prompts"])) <= set(map(tuple, PROMPTS))


@pytest.fixture(scope="module")
def whole(world, pairs, tmp_path_factory):
    return align.run_cell(config(), world, "DPO", 0, pairs, tmp_path_factory.mktemp("whole"), QUIET)


def test_learning_from_pairs_ends_where_an_interrupted_one_does(world, pairs, whole, tmp_path):
    half = config(steps=2)
    align.run_cell(half, world, "DPO", 0, pairs, tmp_path / "cut", QUIET)
    (tmp_path / "cut" / "answers" / "000002.json").unlink()  # killed behind the checkpoint, before the answers
    resumed = align.run_cell(config(), world, "DPO", 0, pairs, tmp_path / "cut", QUIET)
    plain = lambda run: [{k: v for k, v in one.items() if k != "cpu_seconds"} for one in run["history"]]  # noqa: E731
    assert plain(whole) == plain(resumed) and len(whole["history"]) == 3
    assert whole["history"][0]["kl"] == pytest.approx(0, abs=1e-5) != whole["history"][-1]["kl"]
    assert whole["memory"] > 0


def test_answers_are_judged_as_a_loop_would(world, tmp_path):
    """KL and NLL from the whole logits, token by token."""
    other = jax.tree.map(lambda w: 1.3 * w, world.base)
    said = lambda params, batch: align._said(world.model, params["policy"], world.base, batch)  # noqa: E731
    evaluation = Evaluation(world, said, tmp_path)
    values = evaluation({"policy": other}, 3)
    kept = json.loads((tmp_path / "000003.json").read_text())
    answered = world.writer(other, world.held_out, jax.random.key(0))
    assert kept["answers"] == answered.answers and evaluation.read(2) == [] and len(evaluation.read(3)) == 1
    assert values["gold"] == np.mean([sum(map(a.count, "AB")) for a in answered.answers])
    kl, nll, count = 0.0, 0.0, 0
    batch = jax.tree.map(jax.numpy.asarray, answered.batch)
    logits = [
        np.asarray(jax.nn.log_softmax(world.model.logits(p, world.model.apply(p, batch).hidden)))
        for p in (other, world.base)
    ]
    for row, at in zip(*np.nonzero(answered.batch["loss_mask"]), strict=True):
        mine, base = (x[row, at, answered.batch["targets"][row, at]] for x in logits)
        kl, nll, count = kl + mine - base, nll - base, count + 1
    assert values["kl"] == pytest.approx(kl / 4, abs=1e-4) and values["nll"] == pytest.approx(nll / count, abs=1e-5)


def test_best_of_n_rises_with_n(world):
    history = story_ppo.best_cell({"best_of": 4}, world, 0)["history"]
    assert [one["n"] for one in history] == [1, 2, 4]
    scores = [one["score"] for one in history]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_figures_are_read_where_the_kl_is_reached_first():
    history = [{"kl": k, "score": s, "gold": 2 * s, "nll": 1.0, "distinct": 0.5} for k, s in ((0, 0), (2, 4), (1, 9))]
    found = align.at_kl(history, 0.5)
    assert found["score"] == 1 and found["gold"] == 2 and found["kl"] == 0.5
    assert align.at_kl(history, 3) is None


def test_the_tables_and_figures(world, pairs, whole, tmp_path):
    made = [{"kl": name, **whole} for name in ("DPO", "IPO")]
    best = {"kl": "best of n", **story_ppo.best_cell({"best_of": 4}, world, 0)}
    console = Console(record=True, width=160, file=io.StringIO())
    align.report((0.1, 50.0), [best, *made], tmp_path, console)
    text = console.export_text()
    assert "Where the KL is 0.1 nats" in text and "never (at most" in text
    certain = {**config()["certain"], "steps": 3}
    loss = certain["losses"]["IPO"]
    held = {"certain": "IPO", **align.certain_cell({"certain": certain}, world, loss, pairs)}
    assert held["curve"][0][1] == pytest.approx(0, abs=1e-4) and held["curve"][-1][1] > 1e-3
    align.report_certain([held], tmp_path, console)
    assert {path.name for path in tmp_path.glob("*.png")} == {"align.png", "certain.png"}


def test_different_grams_are_counted_over_all_texts():
    assert distinct(["a b a b", "a b"]) == pytest.approx(2 / 4) and distinct(["a"]) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [("happiness", "neither 'sst2 PART'"), ("math:happiness", "neither 'sst2 PART'"), ("sst2 prxy", "did you mean")],
)
def test_unknown_rewards(name, words, tmp_path):
    settings = {"sentiment": {"parts": {"proxy": (0, 4)}}}
    with pytest.raises(ValueError, match=words):
        make_reward(name, settings, tmp_path, tmp_path, QUIET)


def test_other_settings_have_another_folder(tmp_path):
    """Or else a run would go on from the checkpoints of another one."""
    at = {"kl": "free", "seed": 0}
    first, again, other = (run_folder(tmp_path, at, {"rate": rate}) for rate in (0.1, 0.1, 0.2))
    assert first == again != other and first.name.startswith("free-0-")
