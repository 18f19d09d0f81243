"""Scaling laws against published refits, published predictions, and points drawn from laws that are known."""

import csv

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from research.scaling import frontier, kaplan, laws
from research.scaling.laws import Law, Points

# Besiroglu et al.'s notebook (epoch-research/analyzing-chinchilla) on the 240 points.
REFIT = Law(477.84171, 2143.86379, 1.8172355, 0.34731266, 0.36718262)
BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)


@pytest.fixture(scope="module")
def published(data_dir):
    with (data_dir / "chinchilla_extracted" / "svg_extracted_data.csv").open() as file:
        rows = [[float(row[name]) for name in ("Model Size", "Training FLOP", "loss")] for row in csv.DictReader(file)]
    n, c, loss = np.array(rows).T
    points = Points(n, c / 6 / n, loss, c)
    return points.take(np.argsort(points.loss)[:-5])


@pytest.fixture(scope="module")
def fit(published):
    return laws.parametric(published, tries=2)


def drawn(law, sizes=12, budgets=(1e18, 1e19, 1e20, 1e21), noise=0.0, seed=0):
    """Trainings on both sides of the optimum of every budget, with the losses of a law."""
    c = np.repeat(budgets, sizes)
    n = law.optimal(c).parameters * np.tile(np.geomspace(0.1, 10, sizes), len(budgets))
    d = c / 6 / n
    shaken = np.exp(noise * np.random.default_rng(seed).standard_normal(len(c)))
    return Points(n, d, law.loss(n, d) * shaken)


def test_the_published_refit_is_found(published, fit):
    assert len(published) == 240
    # Four digits; ours is the lower of two ends in a flat valley, by two parts in 10⁸ of the objective.
    for name, value in vars(REFIT).items():
        assert getattr(fit.law, name) == pytest.approx(value, rel=2.5e-4), name
    assert fit.objective == pytest.approx(0.00101827403, rel=1e-7)
    assert fit.objective <= laws.objective(REFIT, published)


def test_the_rounded_parameters_of_the_paper_do_not_fit(published, fit):
    rounded, refit = (laws.objective(laws.PUBLISHED[name].law, published) for name in ("hoffmann", "besiroglu"))
    assert rounded == pytest.approx(0.0041210091, abs=1e-10) and refit == pytest.approx(0.0010228428, abs=1e-10)
    precise = Law(np.exp(6.0073404), np.exp(6.0179186), np.exp(0.5267228), 0.33917084, 0.2849083)  # from its source
    assert laws.objective(precise, published) == pytest.approx(0.0012311626, abs=1e-10)
    assert rounded > 4 * fit.objective


def test_the_objective_is_the_sum_that_a_loop_adds_up(published):
    few = published.take(slice(0, 240, 9))
    for law in (REFIT, laws.PUBLISHED["hoffmann"].law):
        total = 0.0
        for n, d, observed in zip(few.parameters, few.tokens, few.loss, strict=True):
            far = abs(np.log(law.E + law.A / n**law.alpha + law.B / d**law.beta) - np.log(observed))
            total += far**2 / 2 if far <= 1e-3 else 1e-3 * (far - 5e-4)
        assert laws.objective(law, few) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_its_gradient_is_that_of_finite_differences(published, seed):
    objective = laws._Objective(published, 1e-2)
    theta = np.random.default_rng(seed).normal([0.0, 0.0, 0.5, 0.3, 0.4], 0.1)
    near = approx_fprime(theta, lambda at: float(objective.value(at)), 1e-7)
    np.testing.assert_allclose(objective.slope(theta)[1], near, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(objective.outside(objective.inside(theta)), theta, atol=1e-12)


def test_compute_optimal_allocations(fit):
    rounded = laws.PUBLISHED["hoffmann"].law
    for law, flops, n, d in (
        (rounded, 5.76e23, 3.21899e10, 2.98231e12),
        (rounded, 1e21, 1.82422e9, 9.13634e10),
        (REFIT, 5.76e23, 7.31939e10, 1.31159e12),
        (REFIT, 1e21, 2.79177e9, 5.96992e10),
    ):
        best = law.optimal(flops)
        assert (best.parameters, best.tokens) == pytest.approx((n, d), rel=1e-5)
        assert 6 * best.parameters * best.tokens == pytest.approx(flops)
        around = np.geomspace(0.5, 2, 101) * best.parameters
        assert law.loss(around, flops / 6 / around).min() == pytest.approx(best.loss, abs=1e-9)
    assert rounded.loss(70e9, 1.4e12) == pytest.approx(1.936645, abs=1e-6)
    assert REFIT.loss(70e9, 1.4e12) == pytest.approx(1.973377, abs=1e-6)
    assert fit.law.optimal(5.76e23).parameters == pytest.approx(7.31939e10, rel=1e-3)
    # Other FLOPs per parameter and token: the same model on a third of them costs a third.
    assert REFIT.optimal(2.0, per=2.0)[:2] == pytest.approx(REFIT.optimal(6.0)[:2])


def test_over_training_predicts_the_held_out_larger_runs(data_dir):
    with (data_dir / "overtraining_scaling" / "models_c4_rpj.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "rpj"]

    def runs(*asked):
        keys = {(round(float(row["params"]) / 1e6), float(row["chinchilla_multiplier"])): row for row in rows}
        found = [[float(keys[key][name]) for name in ("params", "tokens", "loss_c4_val")] for key in asked]
        return Points(*np.array(found).T)

    small = runs((11, 1.0), (79, 1.0), (154, 1.0), (412, 1.0), (11, 16.0))
    large = runs((1440, 32.0), (6889, 1.0))
    law = laws.tied(small)
    error = 100 * np.abs(law.loss(large.parameters, large.tokens) / large.loss - 1)
    np.testing.assert_allclose(error, [0.7103, 0.7320], atol=2e-4)  # Gadre et al., %
    assert law.alpha == law.beta


@pytest.mark.parametrize("seed", range(3))
def test_a_law_is_found_again(seed):
    rng = np.random.default_rng(seed)
    law = Law(*np.exp(rng.normal([6.0, 7.0, 0.5], 0.5)), *rng.uniform(0.25, 0.5, 2))
    found = laws.parametric(drawn(law, sizes=8), tries=3)
    np.testing.assert_allclose(list(vars(found.law).values()), list(vars(law).values()), rtol=2e-3)
    assert found.objective < 1e-9


def test_the_three_approaches_agree_on_points_of_a_law():
    law = Law(400.0, 1500.0, 1.8, 0.34, 0.38)
    points = drawn(law, sizes=9)
    second, parabolas = frontier.isoflop(points, (1e18, 1e19, 1e20, 1e21))
    assert second.a == pytest.approx(law.exponents[0], abs=0.01) and second.a + second.b == 1
    for one in parabolas:
        assert one.parameters == pytest.approx(law.optimal(one.flops).parameters, rel=0.2)
        assert one.at(np.array([one.parameters]))[0] == pytest.approx(one.loss)
    # The envelope needs curves of one size each: the same sizes at all token counts, in two seeds.
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e10, 16), np.geomspace(1e8, 1e12, 24)))
    both = np.tile(n, 2), np.tile(d, 2)
    first = frontier.envelope(Points(*both, law.loss(*both) * np.repeat([0.999, 1.001], len(n))))
    assert first.a == pytest.approx(law.exponents[0], abs=0.02)
    c = 1e20
    assert first.optimal(c)[0] == pytest.approx(law.optimal(c).parameters, rel=0.2)
    assert np.prod(first.optimal(c)) * 6 == pytest.approx(c)


def test_the_published_points_give_the_exponents_of_the_paper(published):
    assert frontier.envelope(published).a == pytest.approx(0.50, abs=0.04)
    second, parabolas = frontier.isoflop(published, BUDGETS)
    assert second.a == pytest.approx(0.49, abs=0.03) and len(parabolas) >= 7


def test_power_laws_are_found_again():
    law = kaplan.Joint(kaplan.PowerLaw(6e13, 0.08), kaplan.PowerLaw(2e13, 0.1))
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e7, 1e11, 6)))
    found = kaplan.joint(Points(n, d, law.loss(n, d)))
    for part in ("parameters", "tokens"):
        one, other = getattr(found, part), getattr(law, part)
        assert (one.scale, one.exponent) == pytest.approx((other.scale, other.exponent), rel=1e-3)
    # Without the other limit each is a line, whatever worse trainings lie above it.
    x = np.geomspace(1e6, 1e9, 5)
    alone = Points(
        np.repeat(x, 2), np.tile([1e30, 1e5], 5), (np.array([1.0, 1.5]) * (3e13 / x[:, None]) ** 0.07).ravel()
    )
    found = kaplan.limits(alone)["N"]
    assert (found.scale, found.exponent) == pytest.approx((3e13, 0.07), rel=1e-6)
    assert kaplan.PUBLISHED["N"].loss(1.5e9) == pytest.approx((8.8e13 / 1.5e9) ** 0.076)


def test_bootstrap_intervals():
    law = Law(400.0, 1500.0, 1.8, 0.34, 0.38)
    points = drawn(law, sizes=8, noise=0.003)
    whole = laws.parametric(points, tries=2).law
    draw = lambda p: laws.parametric(p, starts=[whole]).law  # noqa: E731
    several = laws.bootstrap(points, draw, samples=8)
    low, high = laws.interval([one.exponents[0] for one in several])
    assert low < law.exponents[0] < high and high - low < 0.1
    assert laws.bootstrap(points, draw, samples=1) == several[:1]
    assert laws.interval([0.0, 1.0, 2.0, 3.0, 4.0], confidence=0.5) == (1.0, 3.0)
