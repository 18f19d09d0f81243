"""Paired tests against published examples, exhaustive loops, and what must hold of any test."""

import itertools
import math

import numpy as np
import pytest

from research.evaluation.paired import mcnemar, paired_bootstrap, permutation_test, sign_test

# Darwin's crossed and self-fertilised plants; Fisher, "The Design of Experiments" (1935), section 21: 1726 of the
# 32768 ways to exchange members of pairs give a difference as large.
CROSSED = [23.5, 12, 21, 22, 19.125, 21.5, 22.125, 20.375, 18.25, 21.625, 23.25, 21, 22.125, 23, 12]
SELFED = [17.375, 20.375, 20, 20, 18.375, 18.625, 18.625, 15.25, 16.5, 18, 16.25, 18, 12.75, 15.5, 18]


def answers(both, only_first, only_second, neither):
    counts = (both, only_first, only_second, neither)
    return [np.repeat(right, counts) for right in ([1, 1, 0, 0], [1, 0, 1, 0])]


def test_fishers_count_for_darwins_plants():
    assert permutation_test(CROSSED, SELFED) == 1726 / 32768


def test_sign_test_of_darwins_plants():
    # 13 of 15 pairs: 2 (C(15,0) + C(15,1) + C(15,2)) / 2^15
    assert sign_test(CROSSED, SELFED) == 2 * (1 + 15 + 105) / 32768
    assert sign_test([1, 1, 2], [1, 1, 2]) == 1  # ties decide nothing


def test_mcnemar_of_textbook_tables():
    found = mcnemar(*answers(59, 6, 16, 80))
    assert (found.only_first, found.only_second) == (6, 16)
    assert found.chi2 == pytest.approx(81 / 22)
    assert found.chi2_p == pytest.approx(0.055, abs=5e-4)
    assert found.p == pytest.approx(0.052, abs=5e-4)
    # Agresti's approval ratings (1600 people asked twice): z = 4.17 without the continuity correction.
    found = mcnemar(*answers(794, 150, 86, 570))
    assert (math.sqrt(found.chi2 * 236) + 1) / math.sqrt(236) == pytest.approx(4.17, abs=5e-3)
    assert found.p < 1e-4


def test_mcnemar_equals_the_sign_test_and_needs_a_disagreement():
    first, second = answers(30, 9, 2, 11)
    assert mcnemar(first, second).p == sign_test(first, second)
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0, 0.0, 1.0)


def test_permutation_of_few_examples_is_the_loop_over_all_exchanges():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=8), generator.normal(0.4, size=8)
    d = abs((a - b).mean())
    hits = [abs(np.dot(signs, a - b) / 8) >= d - 1e-12 for signs in itertools.product((1, -1), repeat=8)]
    assert permutation_test(a, b) == np.mean(hits)


def test_sampled_exchanges_come_near_the_normal_limit():
    generator = np.random.default_rng(2)
    a = generator.normal(size=300)
    b = a + generator.normal(0.1, 1, size=300)
    z = (b - a).sum() / math.sqrt(((b - a) ** 2).sum())
    normal = math.erfc(abs(z) / math.sqrt(2))
    assert permutation_test(a, b, samples=4000) == pytest.approx(normal, abs=0.03)
    assert paired_bootstrap(a, b, samples=4000).p == pytest.approx(normal, abs=0.03)


def test_bootstrap_interval_is_that_of_the_differences():
    generator = np.random.default_rng(4)
    a, b = generator.random(200), generator.random(200)
    found = paired_bootstrap(a, b, samples=4000).difference
    half = 1.96 * (a - b).std() / math.sqrt(200)
    assert found.mean == pytest.approx((a - b).mean(), abs=1e-12)
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_pairing_matters():
    # A small gain on every example is certain in pairs and lost among examples taken apart.
    generator = np.random.default_rng(5)
    a = generator.random(100)
    assert paired_bootstrap(a + 0.01, a).p < 0.01
    assert paired_bootstrap(a + 0.01, generator.permutation(a)).p > 0.2


def test_a_statistic_that_is_no_mean():
    # Rows are (hits, tries) and the score is Σ hits / Σ tries, as of BLEU's counts over a corpus.
    generator = np.random.default_rng(6)
    tries = generator.integers(1, 30, 12)
    rows = [np.stack([generator.binomial(tries, p), tries], axis=1) for p in (0.7, 0.5)]
    ratio = lambda chosen: chosen[:, 0].sum() / chosen[:, 1].sum()  # noqa: E731
    d = ratio(rows[0]) - ratio(rows[1])
    hits = []
    for keep in itertools.product((True, False), repeat=12):
        a = np.where(np.array(keep)[:, None], rows[0], rows[1])
        b = np.where(np.array(keep)[:, None], rows[1], rows[0])
        hits.append(abs(ratio(a) - ratio(b)) >= abs(d) - 1e-12)
    assert permutation_test(*rows, statistic=ratio) == np.mean(hits)
    assert paired_bootstrap(*rows, statistic=ratio).difference.mean == pytest.approx(d)


@pytest.mark.parametrize("test", [lambda a, b: paired_bootstrap(a, b).p, permutation_test, sign_test])
def test_equal_systems_are_never_told_apart_and_order_does_not_matter(test):
    generator = np.random.default_rng(7)
    a, b = generator.random(40), generator.random(40)
    assert test(a, a) == 1
    assert test(a, b) == pytest.approx(test(b, a), abs=0.05)
    assert test(a, b) == test(a, b)  # seeded


def test_the_level_is_kept():
    # Of systems that do not differ, about one in twenty may seem to at p <= 0.05.
    generator = np.random.default_rng(8)
    pairs = [generator.random((2, 30)) for _ in range(200)]
    assert sum(sign_test(a, b) <= 0.05 for a, b in pairs) <= 20
    assert 2 <= sum(permutation_test(a, b, samples=199) <= 0.05 for a, b in pairs) <= 20
