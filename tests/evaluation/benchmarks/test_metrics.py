"""Metrics of benchmarks against published goldens, scikit-learn, scipy and plain loops."""

import numpy as np
import pytest
from scipy import stats

from research.apps.prompting import Item, Outcome, Task
from research.evaluation import likelihood
from research.evaluation.benchmarks import METRICS, pass_at_k, scored
from research.evaluation.benchmarks.statistics import f1, macro_f1, matthews, pearson, spearman
from research.evaluation.paired import paired_bootstrap
from research.evaluation.squad import squad, trivia_normalized
from research.evaluation.text_metrics import bootstrap


def columns(gold, predicted):
    return np.array([gold, predicted], np.float64).T


def labelled(gold, predicted, n_choices, metrics=("acc",)):
    """A task of choices and outcomes with these labels."""
    choices = tuple(f" {i}" for i in range(n_choices))
    items = [Item(str(i), "q", choices, (g,)) for i, g in enumerate(gold)]
    outcomes = [Outcome(str(i), p if p is None else int(p)) for i, p in enumerate(predicted)]
    return Task("t", items, metrics), outcomes


def test_published_cases():
    assert 100 * macro_f1(columns([0, 1, 1, 2], [0, 0, 2, 2])) == pytest.approx(44.4444, abs=5e-5)
    assert 100 * spearman(columns([0, 2, 1], [0, 1, 2])) == pytest.approx(50)
    for (n, c, k), expected in {
        (10, 3, 1): 0.3,
        (10, 3, 5): 0.916666667,
        (200, 20, 10): 0.660225624,
        (200, 1, 100): 0.5,
    }.items():
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=5e-10)
    assert pass_at_k(3, 0, 2) == 0 and pass_at_k(3, 2, 2) == 1


def test_published_answers_of_squad_and_trivia_qa():
    gold = [["big moose", "hippo"], ["correct1"], ["correct2.1", "correct2.2"], ["a", "b"]]
    given = ["‘a big  Moose!‘", "wrong", "correct2.2", "c"]
    task = Task("t", [Item(str(i), "q", answers=tuple(texts)) for i, texts in enumerate(gold)], ())
    outcomes = [Outcome(str(i), text) for i, text in enumerate(given)]
    scores = {name: 100 * METRICS[name](task, outcomes) for name in METRICS if name.startswith(("squad", "trivia"))}
    assert scores == pytest.approx({"squad_em": 25, "squad_f1": 35, "trivia_qa_em": 50, "trivia_qa_f1": 50})
    trivia = squad(given, gold, normalize=trivia_normalized)
    assert trivia["exact match"].mean == 0.5 and trivia["f1"].mean == 0.5
    assert METRICS["squad_f1"](task, [*outcomes[:3], Outcome("3", None)]) == pytest.approx(0.35)


def test_mutual_information_turns_a_wrong_choice_right(monkeypatch):
    """The harness's own case: cond (-1, -2, -3), uncond (-.5, -2, -3), gold B; of a tie the first counts."""
    nats = {("q", " A"): 1, ("q", " B"): 2, ("q", " C"): 3, ("", " A"): 0.5, ("", " B"): 2, ("", " C"): 3}

    def scores(model, params, tokenizer, pairs, **options):
        found = np.array([nats[pair] for pair in pairs])
        return likelihood.Scores(found, np.ones(len(found)), np.ones(len(found)), np.ones(len(found), bool))

    monkeypatch.setattr(likelihood, "score_pairs", scores)
    task = Task("t", [Item("0", "q", (" A", " B", " C"), (1,))], ("acc",))
    accuracy = {}
    for by in ("sum", "unconditional"):
        [found] = likelihood.score_choices(None, None, None, [("q", task.items[0].choices)], by=by)
        accuracy[by] = METRICS["acc"](task, [Outcome("0", int(np.argmax(found)), scores=tuple(found))])
    assert accuracy == {"sum": 0, "unconditional": 1}


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(5))
def test_statistics_are_those_of_scikit_learn_and_scipy(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    for classes in (2, 3, 5):
        gold, predicted = generator.integers(0, classes, (2, 60))
        predicted[:20] = gold[:20]
        rows = columns(gold, predicted)
        assert matthews(rows) == pytest.approx(sklearn.matthews_corrcoef(gold, predicted), abs=1e-12)
        assert macro_f1(rows) == pytest.approx(sklearn.f1_score(gold, predicted, average="macro"), abs=1e-12)
        assert f1(rows) == pytest.approx(sklearn.f1_score(gold == 1, predicted == 1), abs=1e-12)
    x = generator.normal(size=40)
    y = np.round(x + generator.normal(size=40))  # with ties
    assert pearson(columns(x, y)) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(columns(x, y)) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_binary_statistics_by_counting(seed):
    gold, predicted = np.random.default_rng(seed).integers(0, 2, (2, 30))
    tp = sum(g and p for g, p in zip(gold, predicted, strict=True))
    tn = sum(not g and not p for g, p in zip(gold, predicted, strict=True))
    fp, fn = sum(predicted) - tp, sum(gold) - tp
    rows = columns(gold, predicted)
    whole = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    assert matthews(rows) == pytest.approx((tp * tn - fp * fn) / whole**0.5)
    assert f1(rows) == pytest.approx(tp / (tp + (fp + fn) / 2))


def test_statistics_where_they_are_not_defined():
    one_sided = columns([0, 1, 1], [1, 1, 1])
    assert matthews(one_sided) == pearson(one_sided) == spearman(one_sided) == 0
    assert f1(columns([0, 0], [0, 0])) == 0 and macro_f1(columns([2, 2], [2, 2])) == 1
    assert matthews(columns([0.1 + 0.2] * 3, [0, 1, 1])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_tasks_by_loops(seed):
    generator = np.random.default_rng(seed)
    gold, predicted = generator.integers(0, 4, (2, 25))
    task, outcomes = labelled(gold, predicted, 4)
    shuffled = [outcomes[i] for i in generator.permutation(25)]
    assert METRICS["acc"](task, shuffled) == pytest.approx(np.mean(gold == predicted))
    assert METRICS["macro_f1"](task, shuffled) == pytest.approx(macro_f1(columns(gold, predicted)))
    written = [Outcome(o.item, f"{o.prediction} ") for o in outcomes]  # a choice by its text
    assert METRICS["acc"](task, written) == METRICS["acc"](task, outcomes)
    assert METRICS["matthews"](task, written) == METRICS["matthews"](task, outcomes)


def test_an_answer_that_cannot_be_read_is_wrong():
    task, outcomes = labelled([1, 0, 1], [1, None, None], 2)
    assert METRICS["acc"](task, outcomes) == pytest.approx(1 / 3)
    assert METRICS["f1"](task, outcomes) == pytest.approx(2 * 1 / (2 + 1))
    assert METRICS["acc"](task, [Outcome("0", "two"), *outcomes[1:]]) == 0
    assert METRICS["number"](Task("t", [Item("0", "q", answers=("7",))], ()), [Outcome("0", "seven")]) == 0


def test_true_mass_of_probabilities():
    scores = np.log([0.1, 0.2, 0.3, 0.05])
    item = Item("0", "q", (" a", " b", " c", " d"), (1, 3))
    task = Task("t", [item], ("mc2",))
    assert METRICS["mc2"](task, [Outcome("0", 2, scores=tuple(scores - 700))]) == pytest.approx(0.25 / 0.65)


def test_grades_between_right_and_wrong():
    item = Item("0", "q", (" a", " b", " c"), (1,), info={"grades": [0.25, 1.0, 0.0]})
    task = Task("t", [item], ())
    found = [METRICS["multiple_choice_grade"](task, [Outcome("0", chosen)]) for chosen in (0, 1, 2, None)]
    assert found == [0.25, 1, 0, 0]


def test_exact_string_match_reads_what_the_pattern_finds():
    item = Item("0", "q", answers=("42",), info={"pattern": r"[-+]?\d+"})
    free = Item("1", "q", answers=("42", "forty two"), info={"pattern": None})
    task = Task("t", [item, free], ())
    texts = {("it is 42 or 43", "42 or 43"): 0.5, ("none", "forty two\n"): 0.5, ("+42", "42"): 0.5, ("42.", "42"): 1}
    for (first, second), expected in texts.items():
        assert METRICS["exact_str_match"](task, [Outcome("0", first), Outcome("1", second)]) == expected


def test_intervals_and_paired_tests_of_any_metric():
    generator = np.random.default_rng(0)
    gold, first = generator.integers(0, 2, (2, 40))
    task, outcomes = labelled(gold, np.where(generator.random(40) < 0.7, gold, first), 2, ("acc", "f1", "matthews"))
    found = scored(task, outcomes, samples=200, seed=3)
    assert list(found) == ["acc", "f1", "matthews"]
    assert found["acc"] == bootstrap(METRICS["acc"].rows(task, outcomes), samples=200, seed=3)
    for name, interval in found.items():
        assert interval.low < interval.mean == METRICS[name](task, outcomes) < interval.high
    other = [Outcome(o.item, 1) for o in outcomes]
    metric = METRICS["f1"]
    test = paired_bootstrap(
        metric.rows(task, outcomes), metric.rows(task, other), statistic=metric.statistic, samples=100
    )
    assert test.difference.mean == pytest.approx(metric(task, outcomes) - metric(task, other))
