"""Win rates against AlpacaEval's published ones, length control against a general optimizer, known agreement."""

import csv
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from research.evaluation.judge import agreement, length_controlled, longer_wins, read_annotations, win_rate

FOLDER = "alpaca_eval_gpt4"


@pytest.fixture(scope="module")
def annotated(data_dir):
    rows = read_annotations(data_dir / FOLDER / "alpaca-7b.annotations.json")
    lengths = [[len(row[name]) for row in rows] for name in ("answer_a", "answer_b")]
    return [row["verdict"] for row in rows], *lengths


@pytest.fixture(scope="module")
def published(data_dir):
    with (data_dir / FOLDER / "alpaca_eval_gpt4_leaderboard.csv").open(newline="") as file:
        return next(row for row in csv.DictReader(file) if row["name"] == "Alpaca 7B")


def test_alpaca_evals_published_win_rate(annotated, published):
    verdicts, _, lengths = annotated
    found = win_rate(verdicts, "B")
    assert found.mean == pytest.approx(float(published["win_rate"]), abs=1e-12)
    assert found.mean == pytest.approx(26.459627329192543, abs=1e-12)
    assert found.mean + win_rate(verdicts, "A").mean == pytest.approx(100)
    assert found.low < found.mean < found.high
    assert np.mean(lengths) == pytest.approx(float(published["avg_length"]), abs=1)


def test_length_control_comes_near_the_published_one(annotated, published):
    # Theirs (26.29) also fits how difficult each instruction is, over all systems; one system's annotations cannot.
    verdicts, a, b = annotated
    found = length_controlled(verdicts, a, b, "B", samples=20)
    assert found.win_rate.mean == pytest.approx(float(published["length_controlled_winrate"]), abs=1)
    assert found.effect > 0


def general_fit(verdicts, a, b):
    """The same likelihood, without the ridge, by an optimizer that knows nothing of it."""
    y = np.array([{"A": 1, "tie": 0.5, "B": 0}[v] for v in verdicts])
    gaps = np.subtract(a, b)
    x = np.tanh(gaps / gaps.std())

    def loss(beta):
        z = beta[0] + beta[1] * x
        return np.sum(np.logaddexp(0, z) - y * z)

    return minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8}).x


def test_length_control_is_the_maximum_of_its_likelihood(annotated):
    verdicts, a, b = annotated
    bias, effect = general_fit(verdicts, a, b)
    found = length_controlled(verdicts, a, b, "A", samples=2)
    assert found.win_rate.mean == pytest.approx(100 / (1 + math.exp(-bias)), abs=0.01)
    assert found.effect == pytest.approx(effect, abs=0.01)
    other = length_controlled(verdicts, a, b, "B", samples=2)
    assert other.win_rate.mean == pytest.approx(100 - found.win_rate.mean)
    assert other.effect == pytest.approx(found.effect)


def judged(n, quality, length_bias, seed=0):
    """Verdicts of a judge with log odds quality + length_bias · tanh(Δ / sd), A being longer more often than not."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(100, 900, n), generator.integers(100, 600, n)
    logit = quality + length_bias * np.tanh((a - b) / (a - b).std())
    wins = generator.random(n) < 1 / (1 + np.exp(-logit))
    return ["A" if win else "B" for win in wins], a, b


def test_a_judge_of_length_alone_is_seen_through():
    verdicts, a, b = judged(4000, quality=0.0, length_bias=2.0)
    assert win_rate(verdicts).mean > 60
    assert longer_wins(verdicts, a, b).low > 0.7
    found = length_controlled(verdicts, a, b, samples=50)
    assert found.win_rate.low < 50 < found.win_rate.high
    assert found.effect == pytest.approx(2, abs=0.2)


def test_a_judge_of_quality_alone_stays_as_it_is():
    verdicts, a, b = judged(4000, quality=1.0, length_bias=0.0)
    assert longer_wins(verdicts, b, b[::-1]).mean == pytest.approx(0.5, abs=0.05)
    found = length_controlled(verdicts, a, b, samples=2)
    assert found.win_rate.mean == pytest.approx(win_rate(verdicts).mean, abs=1.5)
    assert found.effect == pytest.approx(0, abs=0.15)


def test_one_sided_and_equally_long_verdicts_give_finite_rates():
    found = length_controlled(["A"] * 20, range(20), [5] * 20, samples=5)
    assert 95 < found.win_rate.mean <= 100
    assert length_controlled(["A", "B", "tie", "A"], [3] * 4, [3] * 4, samples=5).win_rate.mean == pytest.approx(
        62.5, abs=0.05
    )


def test_pairs_without_a_verdict_are_left_out():
    assert win_rate(["A", None, "tie", None]).mean == 75
    assert longer_wins(["A", None, "B", "tie", "B"], [9, 9, 9, 9, 5], [1, 1, 1, 1, 5]).mean == 0.5


def test_agreement_by_hand():
    judge = ["A", "A", "B", "tie", "B", None, "A"]
    people = ["A", "B", "B", "tie", "tie", "A", None]
    found = agreement(judge, people)
    assert (found.compared, found.share, found.share_decided) == (5, 3 / 5, 2 / 3)
    # κ: observed 0.6, expected (2·1 + 2·2 + 1·2) / 25 = 0.32
    assert found.kappa == pytest.approx((0.6 - 0.32) / (1 - 0.32))
    # α: 10 ratings, 3 of A, 4 of B, 3 ties; unlike pairs expected (12 + 9 + 12) · 2 / 90, observed 0.4
    assert found.alpha == pytest.approx(1 - 0.4 / (66 / 90))
    assert agreement(judge, judge).kappa == 1
    assert math.isnan(agreement(["tie", "A"], ["A", "tie"]).share_decided)
