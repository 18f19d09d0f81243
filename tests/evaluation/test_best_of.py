"""Best-of-n against every subset, against published KL, and the laws against points that follow them."""

from itertools import combinations

import numpy as np
import pytest

from research.evaluation.best_of import best_of_n, best_of_n_kl, over_optimisation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_every_subset_counts(seed, n):
    rng = np.random.default_rng(seed)
    scores, values = rng.normal(size=(2, 4, 6))
    best = [
        [v[max(some, key=s.__getitem__)] for some in combinations(range(6), n)]
        for s, v in zip(scores, values, strict=True)
    ]
    assert best_of_n(scores, values, n) == pytest.approx(np.mean(best))


def test_ties_go_to_the_later_answer_and_many_answers_do_not_overflow():
    assert best_of_n([[1, 1]], [[5, 7]], 2) == 7
    scores = np.random.default_rng(0).uniform(size=(1, 4000))
    assert best_of_n(scores, scores, 2000) == pytest.approx(scores.max(), abs=1e-3)


@pytest.mark.parametrize(
    ("n", "kl"), [(1, 0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (64, 3.174508), (256, 4.549084)]
)
def test_published_kl(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


def test_the_laws_are_found_again():
    kl = np.array([0.2, 1.0, 3.0, 9.0, 20.0])
    d = np.sqrt(kl)
    assert over_optimisation(kl, d * (2 - 0.3 * d), "best_of_n") == pytest.approx((2, 0.3))
    assert over_optimisation(kl, d * (2 - 0.3 * np.log(d)), "rl") == pytest.approx((2, 0.3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: best_of_n_kl(0), "at least 1, given 0"),
        (lambda: best_of_n(np.zeros((2, 3)), np.zeros((2, 2)), 1), r"\(2, 3\) and \(2, 2\)"),
        (lambda: best_of_n(np.zeros((2, 3)), np.zeros((2, 3)), 4), "needs 4 answers .* there are 3"),
        (lambda: over_optimisation(np.ones(2), np.ones(2), "ppo"), "unknown law 'ppo'"),
        (lambda: over_optimisation(np.array([0.0, 1.0]), np.ones(2), "rl"), "above 0"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
