"""Ranking metrics against pytrec_eval on random rankings with ties, and by hand."""

import numpy as np
import pytest

from research.evaluation.ranking import MEASURES, per_query, ranking

NAMES = {"ndcg@10": "ndcg_cut_10", "ndcg@3": "ndcg_cut_3", "recall@5": "recall_5", "p@7": "P_7"}
NAMES |= {"map": "map", "mrr": "recip_rank"}


def random_run(seed):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(40)]
    run, judgements = {}, {}
    for query in range(12):
        kept = rng.choice(names, rng.integers(1, 30), replace=False)
        scores = rng.normal(size=len(kept)).round(int(rng.integers(0, 3)))  # many ties
        scores += 1e-10 * rng.normal(size=len(kept))  # which single precision does not see
        run[f"q{query}"] = {str(name): float(score) for name, score in zip(kept, scores, strict=True)}
        judged = rng.choice(names, rng.integers(1, 15), replace=False)
        judgements[f"q{query}"] = {str(name): int(rng.integers(-1, 5)) for name in judged}
    return run, judgements


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(5))
def test_every_query_is_what_pytrec_eval_says(seed):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run, judgements = random_run(seed)
    wanted = {
        name.replace("_cut_", "_cut.").replace("recall_", "recall.").replace("P_", "P.") for name in NAMES.values()
    }
    theirs = pytrec_eval.RelevanceEvaluator(judgements, wanted).evaluate(run)
    for name, values in per_query(run, judgements, tuple(NAMES)).items():
        assert values.keys() == theirs.keys()
        for query, value in values.items():
            np.testing.assert_allclose(value, theirs[query][NAMES[name]], atol=1e-6, err_msg=f"{name} of {query}")


def test_by_hand():
    judgements = {"q": {"a": 3, "b": 1, "c": 0, "d": -1, "e": 2}}
    run = {"q": {"x": 9.0, "b": 8.0, "d": 7.0, "a": 6.0}, "not judged": {"a": 1.0}}
    found = per_query(run, judgements, ["ndcg@4", "recall@2", "p@2", "map", "mrr"])
    best = 3 + 2 / np.log2(3) + 1 / 2
    expected = [(1 / np.log2(3) + 3 / np.log2(5)) / best, 1 / 3, 1 / 2, (1 / 2 + 2 / 4) / 3, 1 / 2]
    np.testing.assert_allclose([values["q"] for values in found.values()], expected)


def test_nothing_found_or_nothing_relevant_is_zero():
    found = per_query({"q": {}, "r": {"a": 1.0}}, {"q": {"a": 1}, "r": {"a": 0}})
    assert all(values == {"q": 0, "r": 0} for values in found.values())


def test_means_with_intervals():
    run, judgements = random_run(0)
    found, values = ranking(run, judgements), per_query(run, judgements)
    assert tuple(found) == MEASURES
    for name, interval in found.items():
        np.testing.assert_allclose(interval.mean, np.mean(list(values[name].values())))
        assert interval.low <= interval.mean <= interval.high
