"""Entities of BIO labels and their F₁, by hand and against a plain loop."""

import numpy as np
import pytest

from research.evaluation.tagging import Entity, entities, entity_f1


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("", []),
        ("O O", []),
        ("B-x", [(0, 1, "x")]),
        ("O B-x I-x O B-x B-x", [(1, 3, "x"), (4, 5, "x"), (5, 6, "x")]),
        ("I-x I-x I-y B-y I-x", [(0, 2, "x"), (2, 3, "y"), (3, 4, "y"), (4, 5, "x")]),
        ("B-x I-x I-x", [(0, 3, "x")]),
    ],
)
def test_entities(labels, found):
    assert entities(labels.split()) == [Entity(*e) for e in found]


def test_scores_by_hand():
    right = [["B-x", "I-x", "O", "B-y"], ["O", "O"]]
    assert entity_f1(right, right) == (1.0, 1.0, 1.0)
    # One of two is found whole, and one is found that is not there.
    mine = [["B-x", "I-x", "O", "O"], ["O", "B-x"]]
    assert entity_f1(mine, right) == (0.5, 0.5, 0.5)
    # A kind or an end that is wrong is nothing.
    assert entity_f1([["B-y", "I-y", "O", "I-y"], ["O", "O"]], right) == (0.5, 0.5, 0.5)
    assert entity_f1([["B-x", "O", "O", "O"], ["O", "O"]], right) == (0.0, 0.0, 0.0)
    assert entity_f1([["O"]], [["O"]]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_a_plain_loop(seed):
    draw = np.random.default_rng(seed)
    texts = [[draw.choice(["O", "B-a", "I-a", "B-b", "I-b"], n).tolist() for n in (0, 1, 7, 12)] for _ in range(2)]

    def plain(labels):
        out, i = [], 0
        while i < len(labels):
            if labels[i] != "O":
                j = i + 1
                while j < len(labels) and labels[j] == f"I-{labels[i][2:]}":
                    j += 1
                out.append((i, j, labels[i][2:]))
                i = j
            else:
                i += 1
        return out

    mine, right = ([[(k, *e) for e in plain(labels)] for k, labels in enumerate(side)] for side in texts)
    hits = sum(e in r for m, r in zip(mine, right, strict=True) for e in m)
    total = sum(map(len, mine)) + sum(map(len, right))
    assert entity_f1(*texts).f1 == pytest.approx(2 * hits / total)


def test_refusals():
    with pytest.raises(ValueError, match=r"label 'X-a' at 1 is none of 'O', 'B-kind', 'I-kind'"):
        entities(["O", "X-a"])
    with pytest.raises(ValueError, match="1 texts with 2 predicted labels, 1 texts with 1 expected ones"):
        entity_f1([["O", "O"]], [["O"]])
