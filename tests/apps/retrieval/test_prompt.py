"""Prompts in the window, citations, and what happens when nothing is close."""

import pytest

from research.apps.protocol import Options, Reply, Usage
from research.apps.retrieval import prompt
from research.apps.retrieval.document import Chunk
from research.apps.retrieval.prompt import answer, assemble, citation_precision, citations
from research.apps.retrieval.store import Hit


class Scripted:
    """Writes a given text; a token is a word."""

    name = "scripted"

    def __init__(self, text="", window=None):
        self.text, self.window, self.asked = text, window, []

    def count(self, prompt):
        text = prompt if isinstance(prompt, str) else prompt[0]["content"]
        return len(text.split())

    def write(self, prompts, options):
        self.asked.extend(prompts)
        return [Reply(self.text, "stop", Usage(self.count(p), len(self.text.split()))) for p in prompts]


HITS = [
    Hit(Chunk("It lifts.", "a.md", 0, 9, "Wings", "Lift"), 0.9),
    Hit(Chunk("It drags and it drags.", "b.md", 0, 22), 0.8),
    Hit(Chunk("Heat.", "c.md", 0, 5, "Heat"), 0.7),
]


def test_passages_are_numbered_and_named():
    made = assemble("What lifts?", HITS, Scripted(), instruction="Do.")
    assert made == (
        "Do.\n\n[1] Wings > Lift\nIt lifts.\n\n[2] b.md\nIt drags and it drags.\n\n[3] Heat\nHeat.\n\n"
        "Question: What lifts?\nAnswer:",
        tuple(HITS),
        0,
    )
    chat = assemble("What lifts?", HITS[:1], Scripted(), instruction="Do.", chat=True)
    assert chat.prompt == [{"role": "user", "content": "Do.\n\n[1] Wings > Lift\nIt lifts.\n\nQuestion: What lifts?"}]


@pytest.mark.parametrize("chat", [False, True])
def test_the_window_holds_and_the_least_relevant_go_first(chat):
    full = Scripted().count(assemble("What?", HITS, Scripted(), chat=chat).prompt)
    kept = []
    for window in range(full + 10, full - 15, -1):
        model = Scripted(window=window)
        try:
            made = assemble("What?", HITS, model, answer_tokens=10, chat=chat)
        except ValueError as error:
            assert "the question with its best passage takes" in str(error)
            break
        assert model.count(made.prompt) + 10 <= window
        assert made.passages == tuple(HITS[: len(made.passages)]) and made.dropped == 3 - len(made.passages)
        kept.append(len(made.passages))
    assert kept == sorted(kept, reverse=True) and set(kept) == {1, 2, 3} and kept.count(3) == 1


def test_an_answer_tells_what_it_cites():
    model = Scripted("Wings do [1]. Heat does not [3, 1][7].")
    found = answer("What lifts?", lambda question, k, where: HITS[:k], model, Options(max_new_tokens=20), k=3)
    assert found.cited == (HITS[0], HITS[2]) and found.wrong == (7,) and found.passages == tuple(HITS)
    assert found.text == model.text and found.dropped == 0


def test_what_did_not_fit_is_told():
    model = Scripted("So [2, 3].")
    model.window = model.count(assemble("What lifts?", HITS, model).prompt) + 10 - 1
    found = answer("What lifts?", lambda question, k, where: HITS, model, Options(max_new_tokens=10))
    assert (found.passages, found.dropped) == (tuple(HITS[:2]), 1)
    assert (found.cited, found.wrong) == ((HITS[1],), (3,))


def test_nobody_is_asked_when_nothing_is_close():
    model = Scripted("A guess.")
    found = answer("What?", lambda question, k, where: [], model, Options())
    assert found == prompt.Answer("not in the documents") and model.asked == []


def test_citations():
    assert citations("a [2] b [1,2], [ 3 ] [x] [10] (4) [2][5 , 6]") == [2, 1, 10, 5, 6]
    assert citations("") == []
    assert citation_precision([1, 2, 9], {1, 2, 3}) == 2 / 3
    assert citation_precision([], {1}) == 0
