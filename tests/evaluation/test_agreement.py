"""Kappa and alpha against published worked examples and loops over pairs of ratings."""

import itertools
import math

import numpy as np
import pytest

from research.evaluation.agreement import LEVELS, WEIGHTS, cohen_kappa, fleiss_kappa, krippendorff_alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), examples A to D.
BINARY = ["0100000010", "1110010000"]
FIVE = ["aabbdcccedda", "babbbccceddd"]
FOUR_RATERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
PUBLISHED = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}
# Agresti (1990), Table 2.10: how 91 husbands (rows) and wives answered one question, from "never" to "always".
FUN = np.array([[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]])


def spread(table):
    """The two lists of ratings behind a table of counts."""
    pairs = [at for at, n in np.ndenumerate(np.asarray(table)) for _ in range(n)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def numbers(rows):
    return [[None if c == "." else int(c) for c in row] for row in rows]


@pytest.mark.parametrize(
    ("table", "kappa"), [([[20, 5], [10, 15]], 0.4), ([[45, 15], [25, 15]], 0.1304), ([[25, 35], [5, 35]], 0.2593)]
)
def test_kappa_of_textbook_tables(table, kappa):
    assert cohen_kappa(*spread(table)) == pytest.approx(kappa, abs=5e-5)


def test_kappa_of_agrestis_couples():
    # Published by the `vcd` package of R for the same table: unweighted 0.1293, equal spacing 0.2374.
    assert cohen_kappa(*spread(FUN)) == pytest.approx(0.1293, abs=5e-5)
    assert cohen_kappa(*spread(FUN), weights="linear") == pytest.approx(0.2374, abs=5e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_kappa_is_a_loop_over_all_pairs_of_examples(weights):
    generator = np.random.default_rng(3)
    a = generator.integers(0, 5, 60)
    b = np.clip(a + generator.integers(-2, 3, 60), 0, 4)
    w = {"none": lambda i, j: i != j, "linear": lambda i, j: abs(i - j), "quadratic": lambda i, j: (i - j) ** 2}[
        weights
    ]
    observed = np.mean([w(int(i), int(j)) for i, j in zip(a, b, strict=True)])
    expected = np.mean([w(int(i), int(j)) for i in a for j in b])
    assert cohen_kappa(a.tolist(), b.tolist(), weights=weights) == pytest.approx(1 - observed / expected, rel=1e-12)


def test_words_take_the_order_that_is_given():
    names = ["never", "fairly", "often", "always"]
    husband, wife = ([names[i] for i in ratings] for ratings in spread(FUN))
    plain = cohen_kappa(*spread(FUN), weights="quadratic")
    assert cohen_kappa(husband, wife, weights="quadratic", labels=names) == pytest.approx(plain, rel=1e-12)
    assert cohen_kappa(husband, wife, weights="quadratic", labels=sorted(names)) != pytest.approx(plain, abs=0.01)


def test_kappa_ends():
    assert cohen_kappa(["a", "b"], ["a", "b"]) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1
    assert cohen_kappa(["a", "a"], ["a", "b"]) == 0
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]))


@pytest.mark.parametrize("level", PUBLISHED)
def test_alpha_of_krippendorffs_example(level):
    assert krippendorff_alpha(numbers(FOUR_RATERS), level) == pytest.approx(PUBLISHED[level], abs=5e-4)


def test_alpha_of_two_raters():
    assert krippendorff_alpha(BINARY) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha(FIVE) == pytest.approx(0.692, abs=5e-4)


def loop_alpha(rows, level):
    """The definition, rating by rating."""
    units = [[x for x in unit if x is not None] for unit in zip(*rows, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    every = [x for unit in units for x in unit]

    def distance(c, k):
        low, high = min(c, k), max(c, k)
        between = sum(low <= g <= high for g in every) - (every.count(low) + every.count(high)) / 2
        return {
            "nominal": float(c != k),
            "ordinal": 0 if c == k else between**2,
            "interval": (c - k) ** 2,
            "ratio": 0 if c == k else ((c - k) / (c + k)) ** 2,
        }[level]

    observed = sum(distance(c, k) / (len(u) - 1) for u in units for c, k in itertools.permutations(u, 2)) / len(every)
    expected = sum(distance(c, k) for c, k in itertools.permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_its_definition(level):
    generator = np.random.default_rng(5)
    truth = generator.integers(0, 5, 25)
    rows = [np.clip(truth + generator.integers(-1, 2, 25), 0, 6).tolist() for _ in range(4)]
    rows = [[None if generator.random() < 0.3 else x for x in row] for row in rows]
    assert krippendorff_alpha(rows, level) == pytest.approx(loop_alpha(rows, level), rel=1e-12)


def test_nan_is_a_missing_rating_as_none_is():
    rows = numbers(FOUR_RATERS)
    holes = np.array([[math.nan if x is None else x for x in row] for row in rows])
    assert krippendorff_alpha(holes, "interval") == krippendorff_alpha(rows, "interval")


def test_alpha_ends():
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "interval") == 1
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) < 0


# Fleiss (1971) as it is often reprinted: 14 raters, 10 subjects, how many chose each of 5 categories; κ = 0.210.
FLEISS = (
    """0 0 0 0 14, 0 2 6 4 2, 0 0 3 5 6, 0 3 9 2 0, 2 2 8 1 1, 7 7 0 0 0, 3 2 6 3 0, 2 5 3 2 2, 6 5 2 1 0, 0 2 2 3 7"""
)


def test_fleiss_kappa_of_the_published_table():
    units = [[c for c, n in enumerate(map(int, row.split())) for _ in range(n)] for row in FLEISS.split(",")]
    assert fleiss_kappa(list(zip(*units, strict=True))) == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize("raters", [2, 3, 6])
def test_fleiss_kappa_is_a_loop_over_pairs_of_raters(raters):
    generator = np.random.default_rng(raters)
    true = generator.choice(list("abc"), 40)
    ratings = [
        [t if generator.random() < 0.6 else str(generator.choice(list("abc"))) for t in true] for _ in range(raters)
    ]
    same = [x == y for unit in zip(*ratings, strict=True) for x, y in itertools.permutations(unit, 2)]
    drawn = [label for row in ratings for label in row]
    chance = sum((drawn.count(label) / len(drawn)) ** 2 for label in set(drawn))
    assert fleiss_kappa(ratings) == pytest.approx((np.mean(same) - chance) / (1 - chance), rel=1e-12)
    assert fleiss_kappa([ratings[0]] * 3) == 1.0 and math.isnan(fleiss_kappa([["a", "a"], ["a", "a"]]))
