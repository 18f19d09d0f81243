"""How the main job ranks answers and what it says of its reward model and of the best of several samples."""

import numpy as np
import pytest

from experiments.stages import pairs, policies, reward


def common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@pytest.mark.parametrize("seed", range(3))
def test_gold_is_the_f_measure_of_the_longest_common_subsequence(seed):
    generator = np.random.default_rng(seed)
    right, answers = ([list(generator.choice(list("abc"), generator.integers(1, 9))) for _ in range(20)] for _ in "12")
    expected = [2 * common(r, a) / (len(r) + len(a)) for r, a in zip(right, answers, strict=True)]
    found = pairs.gold([" ".join(r) for r in right], [" ".join(a) for a in answers])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_true_answer_stands_above_all_and_ties_are_no_pairs():
    record = {"prompt": "Which module?", "completion": "os path"}
    found = pairs.ranking(record, ["json", "os", "re", " os ", "", "os path"])
    ranked = [(pair["chosen"], pair["rejected"], pair["sampled"]) for pair in found]
    truth = [("os path", other, False) for other in ("json", "os", "re")]
    assert sorted(ranked) == sorted([*truth, ("os", "json", True), ("os", "re", True)])
    assert "Which module?" in found[0]["prompt"] and found[0]["prompt"].endswith("### Response:\n")
    # A wrong answer with the words of the true one is still below it.
    assert [pair["chosen"] for pair in pairs.ranking(record, ["os, path"])] == ["os path"]
    assert pairs.ranking(record, ["os path", ""]) == []


def test_accuracy_counts_equal_scores_half_and_stands_beside_lengths():
    held = [
        {"chosen": "long one", "rejected": "short", "sampled": False},
        {"chosen": "a", "rejected": "bb", "sampled": True},
        {"chosen": "cc", "rejected": "dd", "sampled": True},
    ]
    found = reward.accuracies(held, np.array([1.0, 0.0, 2.0]), np.array([0.0, 0.0, 3.0]))
    means = {kind: [interval[1] for interval in by_method.values()] for kind, by_method in found.items()}
    assert means["all (3 pairs)"] == pytest.approx([0.5, 0.5, 0.5])
    assert means["with the true answer (1 pairs)"] == [1.0, 1.0, 0.0]
    assert means["of two samples (2 pairs)"] == pytest.approx([0.25, 0.25, 0.75])


def test_the_best_of_n_is_chosen_by_the_reward_and_worth_its_gold_score():
    sampled = {"score": np.array([1.0, 2.0, 5.0, 4.0]), "gold": np.array([0.1, 0.3, 0.2, 0.9])}
    found = policies.best_of(sampled, 2)
    assert found["score"] == pytest.approx((2 + 5) / 2)
    assert found["gold"] == pytest.approx((0.3 + 0.2) / 2)
    assert found["kl"] == pytest.approx(np.log(2) - 0.5)
