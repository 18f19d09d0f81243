"""Word problems against a reader of their text: a loop over the sentences, another over the program's lines."""

import re

import pytest

from research.data.word_problems import Difficulty, is_held_out, word_problem

EASY = Difficulty(steps=(1, 5), numbers=(1, 20), most=99)
LARGE = Difficulty(steps=(6, 10), numbers=(100, 999), most=9999)
_SIGNS = {
    "+": r"buys|finds|gives \d+ to (?=%s)|get on|climb in|more \w+ than",
    "-": r"gives|loses|sells|get off|leave|fewer",
    "*": r"doubles|triples|twice|three times",
}
_FACTORS = {"doubles": 2, "twice": 2, "triples": 3, "three times": 3}


def _read(question):
    """The number that a story without distractors leads to."""
    first, *sentences, _ = re.findall(r"[^.?]+[.?]", question)
    owner, value = first.split()[0], int(re.search(r"\d+", first)[0])
    for sentence in sentences:
        sign = next(s for s, words in _SIGNS.items() if re.search(words.replace("%s", owner), sentence))
        if sign == "*":
            value *= next(factor for word, factor in _FACTORS.items() if word in sentence)
        else:
            value += int(re.search(r"\d+", sentence)[0]) * (1 if sign == "+" else -1)
    return value


def _calculated(a, sign, b):
    return {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]


@pytest.mark.parametrize("difficulty", [EASY, LARGE])
def test_story_thoughts_and_program_lead_to_the_answer(difficulty):
    stories = set()
    for index in range(300):
        problem = word_problem(3, index, difficulty)
        assert _read(problem.question) == problem.answer
        steps = re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)\.", problem.thoughts)
        assert all(_calculated(a, sign, b) == int(c) for a, sign, b, c in steps)
        assert [a for a, *_ in steps[1:]] == [c for *_, c in steps[:-1]]
        assert problem.thoughts.endswith(f" {steps[-1][3]}. The answer is {problem.answer}.")
        values = {}
        head, *lines, last = problem.program.splitlines()
        for line in lines:
            name, _, first, *rest = line.split()
            values[name] = _calculated(values[first], *rest) if rest else int(first)
        assert head == "def solution():" and values[last.removeprefix("    return ")] == problem.answer
        low, high = difficulty.steps
        assert low <= len(steps) <= high and max(int(c) for *_, c in steps) <= difficulty.most
        assert len(problem.chain) == len(steps) + 1 == len(lines)
        stories.add(re.search("bus now|have now|have", problem.question)[0])
    assert len(stories) == 3


def test_problems_are_a_function_of_seed_and_index():
    def made(seed):
        return [word_problem(seed, index, EASY) for index in range(50)]

    assert made(0) == made(0) and len({p.question for p in made(0) + made(1)}) == 100


def test_numbers_of_all_lengths_are_about_as_frequent():
    starts = [word_problem(0, index, Difficulty((1, 1), (1, 999), 9999)).chain[0] for index in range(600)]
    assert all(0.25 < sum(len(str(n)) == digits for n in starts) / 600 < 0.42 for digits in (1, 2, 3))


def test_no_held_out_chain_is_in_training():
    held = {word_problem(seed, index, EASY, held_out=True).chain for seed in range(2) for index in range(300)}
    learned = {word_problem(seed, index, EASY).chain for seed in range(2) for index in range(3000)}
    assert len(held) > 200 and not held & learned
    assert all(map(is_held_out, held)) and not any(map(is_held_out, learned))
    # Chains of one step are few: most of those that are left for training are in it, none of the held-out ones is.
    single = {(a, (s, b)) for a in range(1, 21) for s in "+-" for b in range(1, 21) if s == "+" or a > b}
    kept = {chain for chain in single if not is_held_out(chain)}
    assert 0.05 < 1 - len(kept) / len(single) < 0.15 and len(learned & kept) > 0.5 * len(kept)


def test_distractors_are_about_other_things_and_change_nothing():
    distracting = Difficulty((1, 4), (1, 20), 99, distractors=1.0)
    for index in range(50):
        problem = word_problem(0, index, distracting)
        sentences = problem.question.split(". ")
        assert len(sentences) == 2 * len(problem.chain) + 1
        others = {sentence.split()[-1] for sentence in sentences[1::2]}
        assert len(others) == 1 and others.pop() not in sentences[-1]


@pytest.mark.parametrize("steps, numbers, most", [((0, 2), (1, 9), 99), ((1, 11), (1, 9), 99), ((1, 2), (9, 50), 99)])
def test_difficulties_that_cannot_be_drawn_are_refused(steps, numbers, most):
    with pytest.raises(ValueError, match=r"steps from 1 to 10, .* given Difficulty"):
        Difficulty(steps, numbers, most)
