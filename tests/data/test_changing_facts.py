"""A registry that changes: what its questions ask, what an edition keeps, who is new in the last one."""

import pytest

from research.data.changing_facts import editions


def test_a_question_is_answered_by_the_entries_that_it_takes():
    registry = editions(0, 1, people=30, newcomers=5, changed=0.5)[0]
    questions = registry.questions()
    assert len(questions) == 35 * 4 + 24 * 2 and len({q.text for q in questions}) == len(questions)
    for question in questions:
        for title, sentence in zip(question.titles, question.found, strict=True):
            assert sentence in registry.passage(title) and title in sentence
        assert question.titles[0] in question.text and question.answer in question.found[-1]
        if len(question.titles) == 2:
            # The second entry is named by the first alone.
            assert question.titles[1] in question.found[0] and question.titles[1] not in question.text


def test_the_rate_of_change_and_the_newcomers():
    first, second, last = (r.entries for r in editions(1, 3, people=200, newcomers=40, changed=0.4))
    assert first.keys() == second.keys() < last.keys() and len(last) == len(first) + 40
    assert editions(1, 3, people=200, newcomers=40, changed=0.4)[1].entries == second
    for before, after in ((first, second), (second, last)):
        kept = [before[title][name] == after[title][name] for title in before for name in before[title]]
        # A fact that is drawn anew may come out as it was.
        assert 0.55 < sum(kept) / len(kept) < 0.72
    same = editions(1, 2, people=200, newcomers=0, changed=0.0)
    assert same[0].entries == same[1].entries


@pytest.mark.parametrize("changes", [{"count": 0}, {"people": 570}, {"changed": 1.5}])
def test_registries_that_cannot_be_made_are_refused(changes):
    settings = {"count": 2, "people": 10, "newcomers": 10, "changed": 0.5} | changes
    with pytest.raises(ValueError, match="at most 576 people"):
        editions(0, settings.pop("count"), **settings)
