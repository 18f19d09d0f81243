"""Calibration figures against loops over the examples, small sums by hand, and models that are calibrated by making."""

import math

import numpy as np
import pytest

from research.evaluation.calibration import (
    brier_score,
    diagram,
    error_by_chance,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from research.report import plots


@pytest.fixture(scope="module")
def answers():
    """Confidences with ties, 0 and 1 among them, and outcomes that are right less often than they claim."""
    generator = np.random.default_rng(0)
    confidence = np.concatenate([generator.random(180), np.round(generator.random(60), 1), [0.0, 1.0, 1.0]])
    return confidence, (generator.random(len(confidence)) < confidence**2).astype(int)


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_equal_width_is_a_loop_over_bins(answers, bins):
    confidence, correct = answers
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(confidence) if (b / bins < p <= (b + 1) / bins) or (b == 0 and p == 0)]
        if inside:
            gap = sum(correct[i] for i in inside) / len(inside) - sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(gap)
    assert expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_equal_mass_cuts_the_sorted_list(bins):
    generator = np.random.default_rng(1)
    confidence = generator.permutation(np.linspace(0.01, 0.99, 60))
    correct = generator.integers(0, 2, 60)
    order = np.argsort(confidence)
    parts = np.array_split(order, bins)
    expected = sum(abs(correct[part].mean() - confidence[part].mean()) * len(part) / 60 for part in parts)
    found = reliability(confidence, correct, bins=bins, kind="mass")
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert found.examples.tolist() == [60 // bins] * bins


@pytest.mark.parametrize("kind", ["width", "mass"])
def test_order_and_ties_have_no_influence(answers, kind):
    confidence, correct = answers
    shuffled = np.random.default_rng(2).permutation(len(confidence))
    here = reliability(confidence, correct, kind=kind)
    there = reliability(confidence[shuffled], correct[shuffled], kind=kind)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert here.examples.sum() == len(confidence)
    assert here.mce >= here.ece > 0.05
    assert len(reliability([0.5] * 9, [1] * 9, kind=kind).examples) == 1


def test_honest_confidences_are_calibrated():
    generator = np.random.default_rng(3)
    confidence = generator.random(40_000)
    correct = generator.random(40_000) < confidence
    for kind in ("width", "mass"):
        assert expected_calibration_error(confidence, correct, kind=kind) < 0.015
        assert expected_calibration_error(confidence, ~correct, kind=kind) > 0.4


def test_brier_by_hand_and_of_classes():
    assert brier_score([0.7, 0.3, 0.9], [1, 1, 0]) == pytest.approx((0.09 + 0.49 + 0.81) / 3)
    both = [[0.3, 0.7], [0.7, 0.3], [0.1, 0.9]]
    assert brier_score(both, [1, 1, 0]) == pytest.approx(2 * (0.09 + 0.49 + 0.81) / 3)
    # Murphy (1973): always the base rate gives its uncertainty, p (1 - p).
    assert brier_score([0.25] * 8, [1, 0, 0, 0] * 2) == pytest.approx(0.25 * 0.75)


def test_risk_coverage_is_a_loop_over_thresholds(answers):
    confidence, correct = answers
    found = risk_coverage(confidence, correct)
    thresholds = sorted(set(confidence), reverse=True)
    assert len(found.coverage) == len(thresholds)
    for k, t in enumerate(thresholds):
        given = [i for i, p in enumerate(confidence) if p >= t]
        assert found.coverage[k] == pytest.approx(len(given) / len(confidence))
        assert found.risk[k] == pytest.approx(sum(correct[i] == 0 for i in given) / len(given))
    own = [np.mean([1 - c for p, c in zip(confidence, correct, strict=True) if p >= mine]) for mine in confidence]
    assert found.area == pytest.approx(np.mean(own))
    assert found.risk[-1] == pytest.approx(1 - correct.mean())


def test_a_good_order_of_answers_has_less_risk():
    correct = np.array([1] * 70 + [0] * 30)
    knowing, blind = risk_coverage(np.linspace(1, 0, 100), correct), risk_coverage(np.full(100, 0.5), correct)
    mistaken = risk_coverage(np.linspace(0, 1, 100), correct)
    assert knowing.area < blind.area < mistaken.area
    assert blind.area == pytest.approx(0.3)


def test_the_diagram_is_drawn(answers):
    series = diagram({"ours": reliability(*answers)})
    assert series["as sure as right"] == ([0.0, 1.0], [0.0, 1.0])
    assert len(series["ours"][0]) == len(series["ours"][1]) == 15
    assert "as sure as right" in plots.svg(plots.curves(series, x_label="confidence", y_label="accuracy"))


@pytest.mark.parametrize(("p", "n"), [(0.6, 10), (0.9, 25), (1.0, 5)])
def test_the_error_of_chance_is_the_binomials(p, n):
    # All in one bin: the expected |k/n − p|, k of n right.
    exact = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) * abs(k / n - p) for k in range(n + 1))
    assert error_by_chance([p] * n, bins=5, samples=4000) == pytest.approx(exact, abs=0.004)
    assert error_by_chance([p] * 20_000, bins=5, samples=5) < 0.01
