"""Examples in front of a question: never the question itself, the same for the same seed, as many as fit."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from research.apps.prompting import Item, Task
from research.apps.prompting.shots import ORDERS, build, choose

WORDS = ["red", "blue", "green", "small", "large", "old", "new", "stone", "river", "bird", "tree", "house"]


def made(seed, count=30, kinds=(" yes", " no", " maybe")):
    """A task of random questions, asked of its own pool."""
    draw = np.random.default_rng(seed)
    items = [
        Item(f"test/{i}", " ".join(draw.choice(WORDS, 5)) + f" {i}?", kinds, (int(draw.integers(len(kinds))),))
        for i in range(count)
    ]
    return Task(f"made/{seed}", items, metrics=("accuracy",), pool=items)


@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize("seed", range(3))
def test_never_the_asked_row_and_always_the_same_ones(how, seed):
    task = made(seed)
    # The question of test/0 in other blanks and case, under another name.
    twin = replace(task.items[0], id="train/7", question=f"  {task.items[0].question.upper()} ".replace(" ", "  "))
    task = replace(task, pool=[*task.pool, twin])
    for item in task.items:
        others = [
            other for other in task.pool if other is not item and (item is not task.items[0] or other is not twin)
        ]
        everything = choose(task, item, len(others), seed=seed, how=how)
        assert sorted(shot.id for shot in everything) == sorted(other.id for other in others)
        for k in (0, 1, 2, 7):
            some = everything[:k] if how == "first" else everything[len(everything) - k :]
            assert choose(task, item, k, seed=seed, how=how) == some
        if how == "first":
            assert everything == others


def test_seed_task_and_item_each_change_what_is_drawn():
    task = made(0)
    ids = lambda task, item, seed: [shot.id for shot in choose(task, item, 8, seed=seed)]  # noqa: E731
    first = ids(task, task.items[0], 0)
    assert first == ids(made(0), made(0).items[0], 0)
    others = [ids(task, task.items[0], 1), ids(replace(task, name="b"), task.items[0], 0), ids(task, task.items[1], 0)]
    assert all(other != first for other in others)


def test_random_examples_are_uniform():
    task = made(0, count=6)
    drawn = Counter(shot.id for seed in range(600) for shot in choose(task, task.items[0], 2, seed=seed))
    assert set(drawn) == {f"test/{i}" for i in range(1, 6)}
    # 600 draws of 2 out of 5: 240 each, standard deviation 12.
    assert all(abs(count - 240) < 60 for count in drawn.values())


@pytest.mark.parametrize("seed", range(5))
def test_balanced_counts_differ_by_at_most_one_until_an_answer_runs_out(seed):
    task = made(seed, 40)
    there = Counter(item.gold[0] for item in task.pool[1:])
    for k in range(1, 39):
        counts = Counter(shot.gold[0] for shot in choose(task, task.items[0], k, seed=seed, how="balanced"))
        most = max(counts.values())
        assert sum(counts.values()) == k
        assert all(counts[answer] in (most, most - 1, there[answer]) for answer in there)


def test_balanced_over_written_answers():
    pool = [Item(f"train/{i}", f"question {i}", answers=("rare" if i < 2 else "common",)) for i in range(20)]
    task = Task("written", [], metrics=("exact_match",), pool=pool)
    asked = Item("test/0", "question")
    for k, rare in ((2, 1), (4, 2), (5, 2), (10, 2)):
        shots = choose(task, asked, k, how="balanced")
        assert Counter(shot.answers[0] for shot in shots)["rare"] == rare


@pytest.mark.parametrize("seed", range(3))
def test_nearest_examples_by_a_plain_loop(seed):
    task = made(seed, 25)
    texts = [item.question.rstrip("?").split() for item in task.pool]
    weight = {w: np.log(len(texts) / sum(w in t for t in texts)) for t in texts for w in t}

    def vector(words):
        return {w: words.count(w) * weight[w] for w in words}

    for asked in range(5):
        mine, likeness = vector(texts[asked]), []
        for words in texts:
            other = vector(words)
            size = np.sqrt(sum(x * x for x in other.values()))
            likeness.append(sum(mine[w] * other[w] for w in mine if w in other) / size)
        shots = choose(task, task.items[asked], 6, seed=seed, how="nearest")
        found = [likeness[int(shot.id.partition("/")[2])] for shot in shots]
        best = sorted((x for i, x in enumerate(likeness) if i != asked), reverse=True)[:6]
        np.testing.assert_allclose(found[::-1], best, atol=1e-12)


def test_a_prompt_is_description_examples_and_question():
    task = replace(made(0, 4), description="Say yes or no.", separator="\n--\n")
    shots = choose(task, task.items[0], 2)
    prompt = build(task, task.items[0], shots)
    assert prompt.text == "\n--\n".join(
        ["Say yes or no.", *(s.question + s.choices[s.gold[0]] for s in shots), task.items[0].question]
    )
    assert (prompt.used, prompt.dropped) == (2, 0)
    bare = build(replace(task, description=""), task.items[0], [])
    assert (bare.text, bare.used, bare.dropped) == (task.items[0].question, 0, 0)
    published = build(replace(task, description="", preamble="Q: 1\nA: 2\n--\nQ: 3\nA: 4"), task.items[0], [])
    assert published.text == f"Q: 1\nA: 2\n--\nQ: 3\nA: 4\n--\n{task.items[0].question}" and published.used == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("written", [False, True])
def test_a_window_drops_whole_examples_first_ones_first(seed, written):
    task = replace(made(seed, 12), description="Say it.", max_new_tokens=9)
    if written:
        plain = [Item(i.id, i.question, answers=(i.choices[i.gold[0]].strip() * 3,)) for i in task.pool]
        task = replace(task, items=plain, pool=plain)
    item = task.items[seed]
    shots = choose(task, item, 8, seed=seed)
    room = 9 if written else len(" maybe")
    smallest = len(build(task, item, []).text) + room
    for window in range(smallest, smallest + 400, 7):
        prompt = build(task, item, shots, count=len, window=window)
        assert prompt.used + prompt.dropped == 8
        assert prompt.text == build(task, item, shots[prompt.dropped :]).text
        assert len(prompt.text) + room <= window
        if prompt.dropped:  # one more would have been too much
            assert len(build(task, item, shots[prompt.dropped - 1 :]).text) + room > window
    assert prompt.dropped == 0
    with pytest.raises(ValueError, match=f"item '{item.id}' needs {smallest} tokens"):
        build(task, item, shots, count=len, window=smallest - 1)


def test_a_preamble_that_has_no_room_is_left_out_whole():
    task = replace(made(0, 3), preamble="Q: 1\nA: 2\n\nQ: 3\nA: 4")
    prompt = build(task, task.items[0], [], count=len, window=45)
    assert (prompt.text, prompt.used, prompt.dropped) == (task.items[0].question, 0, 1)
