"""BM25 against a plain loop and against stored rankings of Cranfield; fusion against its formula."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.fusion import reciprocal_rank
from research.evaluation.ranking import per_query, ranking

NAMES = {
    "map": "map",
    "mrr": "recip_rank",
    "p@10": "P_10",
    "recall@100": "recall_100",
    "ndcg@5": "ndcg_cut_5",
    "ndcg@10": "ndcg_cut_10",
}


def loop(texts, query, k1, b):
    split = [text.split() for text in texts]
    average = sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        total = 0.0
        for word in query.split():
            df = sum(word in other for other in split)
            tf = words.count(word)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            if tf:
                total += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(words) / average))
        scores.append(total)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (0, 0), (2.0, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_a_loop(k1, b, seed):
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(20)]
    texts = [" ".join(rng.choice(vocabulary, rng.integers(1, 30))) for _ in range(15)]
    bm25 = BM25(texts, k1=k1, b=b)
    for query in ("w1 w2 w3", "w1 w1 w7", "unknown w3", "unknown", ""):
        np.testing.assert_allclose(bm25.scores(query), loop(texts, query, k1, b), atol=1e-12)


def test_texts_without_words():
    assert BM25(["", "...", "a"]).scores("a")[:2].tolist() == [0, 0]
    assert BM25(["", ""]).scores("a").tolist() == [0, 0]


def test_words_are_letters_and_digits():
    scores = BM25(["os.read_text(x)", "Straße, 2. Stock"]).scores
    assert (scores("READ")[0] > 0, scores("text")[0] > 0, scores("straße 2")[1] > 0) == (True, True, True)


@pytest.fixture(scope="module")
def cranfield(data_dir):
    folder = data_dir / "cranfield"
    documents, queries = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("corpus", "queries")
    )
    judgements = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        judgements.setdefault(query, {})[document] = int(grade)
    return documents, queries, judgements, json.loads((data_dir / "golden" / "cranfield_bm25.json").read_text())


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4)])
def test_cranfield_is_what_was_stored(cranfield, k1, b):
    documents, queries, judgements, stored = cranfield
    bm25 = BM25([f"{d['title']} {d['text']}" for d in documents], k1=k1, b=b)
    names = [d["_id"] for d in documents]
    run = {}
    for query in queries:
        scores = bm25.scores(query["text"])
        run[query["_id"]] = {names[i]: scores[i] for i in np.argsort(-scores, kind="stable")[:1000] if scores[i] > 0}
    found = ranking(run, judgements, tuple(NAMES), samples=10)
    for name, golden in NAMES.items():
        np.testing.assert_allclose(found[name].mean, stored[f"bm25_k1={k1}_b={b}"][golden], atol=1e-6)
    if k1 == 1.2:
        top = Counter(run["1"]).most_common(10)
        assert [(name, round(score, 4)) for name, score in top] == [tuple(pair) for pair in stored["top10_query_1"]]
        first = per_query(run, judgements, ["ndcg@10"])["ndcg@10"]
        for query, value in stored["per_query_ndcg10_first5"].items():
            np.testing.assert_allclose(first[query], value, atol=1e-6)


def test_reciprocal_rank():
    fused = reciprocal_rank([["a", "b", "c"], ["c", "a"], []])
    expected = {"a": 1 / 61 + 1 / 62, "b": 1 / 62, "c": 1 / 63 + 1 / 61}
    assert [name for name, _ in fused] == ["a", "c", "b"]
    for name, score in fused:
        np.testing.assert_allclose(score, expected[name])
    assert reciprocal_rank([]) == []
    assert dict(reciprocal_rank([["a", "b"]], k=1)) == {"a": 1 / 2, "b": 1 / 3}
