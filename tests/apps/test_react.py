"""ReAct: the published trajectories replayed to the character, malformed steps, guards, HotpotQA and FEVER rows."""

import json
import re

import pytest

from research.apps.react import parse, render, run, run_all
from research.apps.tools import Tool, Tools
from research.apps.trace import AGAIN, Budget, append_traces, read_traces
from research.apps.wiki import Wiki
from research.evaluation.squad import exact, squad
from tests.apps.scripted import Scripted

STEP = r"Thought (\d+): (.*?)\nAction \1: (\w+)\[(.*?)\]\n(?:Observation \1: (.*?)\n(?=Thought))?"
PAGES = {
    "Milhouse": "Milhouse is a character. He is drawn by Matt Groening.\nMilhouse was named after Richard Nixon. "
    "He is ten. He has blue hair. He is a friend. Nixon was named first.",
    "Milhouse (film)": "A documentary of 1971.",
    "High Plains": "High Plains refers to one of two regions.",
}


def trajectories(data_dir):
    """(lead, head, question, text) of every run in the published prompts; the head is what stands before it."""
    for file, key, lead in (("prompts_naive", "webthink_simple6", "Question"), ("fever", "webthink_simple3", "Claim")):
        text = json.loads((data_dir / "react" / f"{file}.json").read_text(encoding="utf-8"))[key]
        starts = [match.start() for match in re.finditer(rf"^{lead}: ", text, re.M)]
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            question, _, rest = text[start:end].partition("\n")
            yield lead, text[:start], question.removeprefix(f"{lead}: "), rest.rstrip("\n") + "\n"


def texts(function, *names):
    """Tools that take one text."""
    parameters = {"properties": {"x": {"type": "string"}}, "required": ["x"]}
    return Tools([Tool(name, "", parameters, function) for name in names])


def test_published_trajectories_are_driven_and_rendered_word_for_word(data_dir):
    count = 0
    for lead, head, question, text in trajectories(data_dir):
        steps = re.findall(STEP, text, re.S)
        seen = iter([observation for *_, observation in steps])
        tools = texts(lambda x, seen=seen: next(seen), "Search", "Lookup")
        model = Scripted([f" {thought}\nAction {n}: {action}[{argument}]" for n, thought, action, argument, _ in steps])
        trace = run(model, tools, question, head=head, lead=lead)
        assert (trace.ended, trace.answer) == ("finish", steps[-1][3])
        assert [step.notes for step in trace.steps] == [()] * len(steps)
        last = f"Observation {len(steps)}: \n"
        shown = render(trace.steps).removesuffix(last)
        assert [line.rstrip() for line in shown.splitlines()] == [line.rstrip() for line in text.splitlines()]
        assert model.asked[-1][0].startswith(f"{head}{lead}: {question}\nThought 1: ")
        count += len(steps)
    assert count == 28


def test_an_encyclopedia_says_what_the_published_one_says(data_dir):
    wiki = Wiki(PAGES)
    assert wiki.lookup("x") == "No page is open: search first."
    assert wiki.search("milhouse").startswith(
        "Milhouse is a character. He is drawn by Matt Groening. Milhouse was named"
    )
    assert "friend" not in wiki.search("Milhouse")  # the first five sentences
    assert wiki.lookup("named") == "(Result 1 / 2) Milhouse was named after Richard Nixon."
    assert wiki.lookup("named") == "(Result 2 / 2) Nixon was named first."
    assert wiki.lookup("named") == "No more results."
    assert wiki.lookup("BLUE") == "(Result 1 / 1) He has blue hair."
    assert wiki.search("Milhouse Van") == "Could not find [Milhouse Van]. Similar: ['Milhouse', 'Milhouse (film)']."
    assert wiki.search("Hihg Plians").endswith("['High Plains'].")
    published = json.loads((data_dir / "react" / "prompts_naive.json").read_text(encoding="utf-8"))["webthink_simple6"]
    pattern = r"Could not find \[[^]]+\]\. Similar: \[('[^']+'(, '[^']+')*)\]\."
    assert re.search(pattern, published) and re.fullmatch(pattern, wiki.search("Milhouse Van"))


@pytest.mark.parametrize(
    ("text", "action", "argument", "note"),
    [
        (" So.\nAction 2: Search[a b]", "Search", "a b", ""),
        (" So.\nAction 2: Search[a [b] c]\n", "Search", "a [b] c", ""),
        (" So.\nAction 2: Search[def f(x):\n    return x[0]\n]", "Search", "def f(x):\n    return x[0]\n", ""),
        (" So.\nAction 7: Search[a]", "Search", "a", "action 7 stands in step 2"),
        (" So.\nAction: search[a]", "search", "a", ""),
        (" So.\nAction 2: Search[a]\nAction 3: Lookup[b]", "Search", "a", "several actions"),
        (" So.\nAction 2: Search[a] and Lookup[b]", "Search", "a", "several actions"),
        (" So.\nAction 2: Search[a]\nObservation 2: I found b.\nThought 3: c", "Search", "a", "made up"),
        (" So.\nAction 2: Search[a", "Search", "a", "no closing bracket"),
        (" So.\nAction 2: Search: a", "Search", "a", "no brackets"),
        (' So.\nAction 2: lookup("a b")', "lookup", "a b", "no brackets"),
        (" So.\nSearch[a]", "Search", "a", 'no "Action"'),
        (" Thought 2: So.\nAction 2: Finish[yes]", "Finish", "yes", ""),
        (" So.\nAction 2: I would look for it.", "", "I would look for it.", "cannot be read"),
        (" So.", "", "", "no action"),
        (" So.\nObservation 2: b", "", "", "no action"),
        ("", "", "", "no action"),
    ],
)
def test_a_malformed_step_is_mended_and_noted_or_told(text, action, argument, note):
    found = parse(text, 2, ["Search", "Lookup"])
    assert found[:3] == ("So." if text else "", action, argument)
    assert any(note in one for one in found.notes) if note else not found.notes


def test_a_thought_alone_is_asked_for_its_action():
    said = [" I think.", " Search[Milhouse]", " Done.\nAction 2: dunno", " still not", " x\nAction 3: Finish[y]"]
    model = Scripted(said)
    trace = run(model, Wiki(PAGES).tools(), "Who?")
    assert model.asked[1][0].endswith("Thought 1: I think.\nAction 1:")
    assert (trace.steps[0].thought, trace.steps[0].argument) == ("I think.", "Milhouse")
    assert (
        trace.steps[1].action == "" and "expected Name[argument] with a name of ['Search'" in trace.steps[1].observation
    )
    assert (trace.answer, trace.tokens) == ("y", sum(map(len, said)))


def test_what_is_repeated_is_told_then_ended():
    model = Scripted(lambda prompt: " Again.\nAction 1: Search[High Plains]")
    trace = run(model, Wiki(PAGES).tools(), "Where?")
    page = PAGES["High Plains"]
    assert [step.observation for step in trace.steps] == [page, page + AGAIN, page + AGAIN]
    assert (trace.ended, trace.answer) == ("loop", None)
    again = Scripted([" a\nAction 1: Search[Milhouse]", *[" Next.\nAction 1: Lookup[named]"] * 2])
    assert run(again, Wiki(PAGES).tools(), "Who?", budget=Budget(steps=3)).ended == "steps"  # other results: no loop


def test_budgets_end_a_run():
    numbers = iter(range(99))
    model = Scripted(lambda prompt: f" So.\nAction 1: Search[{next(numbers):02d}]")
    assert len(run(model, Wiki(PAGES).tools(), "?", budget=Budget(steps=4)).steps) == 4
    trace = run(model, Wiki(PAGES).tools(), "?", budget=Budget(tokens=60, step_tokens=30))
    assert (trace.ended, len(trace.steps)) == ("tokens", 3)
    assert all(options.max_new_tokens == 30 for _, options in model.asked[-3:])


def test_the_oldest_observations_leave_a_full_window():
    numbers = iter(range(99))
    model = Scripted(lambda prompt: f" So.\nAction 1: Search[page {next(numbers)}]", window=700)
    tools = texts(lambda x: x * 20, "Search")
    trace = run(model, tools, "?", head="Do.\n", budget=Budget(steps=20, step_tokens=100))
    assert trace.ended == "window"
    left_out = [re.findall(r"the first (\d+)", " ".join(step.notes)) for step in trace.steps]
    assert left_out[:3] == [[], [], []] and left_out[-1] == [str(len(trace.steps) - 1)]
    for (prompt, _), step in zip(model.asked, trace.steps, strict=True):
        assert len(prompt) + 100 <= 700
        assert prompt.count("(left out)") == int("".join(re.findall(r"first (\d+)", " ".join(step.notes))) or 0)
    with pytest.raises(ValueError, match="do not fit into a window of 700"):
        run(model, tools, "?" * 600, head="Do.\n", budget=Budget(step_tokens=100))


def test_an_agent_is_told_its_tools_and_bad_calls_are_told_too():
    def fails(x: int) -> int:
        """Fails."""
        raise RuntimeError("no luck")

    model = Scripted(
        [" a\nAction 1: fial[1]", " b\nAction 2: fails[x]", " c\nAction 3: fails[1]", " d\nAction 4: finish[ 3 ]"]
    )
    trace = run(model, Tools([fails]), "?")
    assert "fails[x]: Fails.\nFinish[answer]" in model.asked[0][0]
    assert [step.observation for step in trace.steps] == [
        "Error: unknown tool 'fial', did you mean 'fails'?; have ['fails']",
        "Error: fails takes (x: integer) as JSON, given 'x'",
        "Error: fails failed: RuntimeError: no luck",
        "",
    ]
    assert trace.answer == "3"
    with pytest.raises(ValueError, match="no tool can have this name"):
        run(model, Tools([Tool("finish", "", {"properties": {}, "required": []}, fails)]), "?")


def test_hotpot_and_fever_rows_go_through_side_by_side(data_dir, tmp_path):
    """A model that searches and then knows every second answer: EM and label accuracy are its share of right ones."""
    rows = json.loads((data_dir / "react" / "hotpot_dev_v1_simplified.1000.json").read_text(encoding="utf-8"))[:40]
    lines = (data_dir / "react" / "fever_paper_dev.1000.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    claims = [{"question": row["claim"], "answer": row["label"]} for row in map(json.loads, lines)]
    for lead, some in (("Question", rows), ("Claim", claims)):
        known = {row["question"]: row["answer"] for row in some[::2]}

        def rule(prompt, known=known, lead=lead):
            question = re.findall(rf"^{lead}: (.*)$", prompt, re.M)[-1]
            if not re.search(r"^Thought 2:$", prompt, re.M):
                return f" I search.\nAction 1: Search[{question[:20].strip()}]"
            return f" I end.\nAction 2: Finish[{known.get(question, 'MAYBE')}]"

        pages = {row["question"][:20].strip(): f"A page on {row['question']}" for row in some}
        traces = run_all(
            Scripted(rule), [Wiki(pages).tools() for _ in some], [row["question"] for row in some], lead=lead
        )
        assert all(trace.ended == "finish" and "A page on" in trace.steps[0].observation for trace in traces)
        answers = [trace.answer for trace in traces]
        if lead == "Question":
            scores = squad(answers, [[row["answer"]] for row in some])
            assert scores["exact match"].mean == scores["f1"].mean == 0.5
        else:
            assert sum(exact(answer, row["answer"]) for answer, row in zip(answers, some, strict=True)) == 20
        append_traces(tmp_path / "runs.jsonl", traces)
    traces[0].question += "\u2028\x85\r\n"
    append_traces(tmp_path / "odd.jsonl", traces[:1])
    assert read_traces(tmp_path / "odd.jsonl") == traces[:1]
    traces[0].question = claims[0]["question"]
    kept = read_traces(tmp_path / "runs.jsonl")
    assert len(kept) == 80 and kept[40:] == traces
    first = json.loads((tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert list(first) == ["schema", "model", "question", "steps", "answer", "ended"]


@pytest.mark.parametrize("line", ["{", "[]", '{"schema": "other"}', '{"schema": "lifecycle/trace-1", "ended": "x"}'])
def test_a_line_that_is_no_trace_is_named(tmp_path, line):
    append_traces(tmp_path / "t.jsonl", [run(Scripted([" a\nAction 1: Finish[b]"]), Wiki(PAGES).tools(), "?")])
    with (tmp_path / "t.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: no run"):
        read_traces(tmp_path / "t.jsonl")
