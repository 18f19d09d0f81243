"""Function calling: stored glaive chats parsed and rendered again, calls in texts, the agent's loop and its guards."""

import json

import pytest

from research.apps.calling import converse
from research.apps.calls import call, for_template, from_sharegpt, read_calls, to_sharegpt
from research.apps.protocol import Reply, Usage
from research.apps.tools import Tools
from research.apps.trace import AGAIN, Budget
from tests.apps.scripted import Scripted

USER = [{"role": "user", "content": "What is 2 and 3?"}]


def add(x: int, y: int) -> int:
    """Adds."""
    return x + y


def calls(*pairs, text=""):
    made = tuple(call(name, arguments, f"c{i}") for i, (name, arguments) in enumerate(pairs))
    return Reply(text, "tool_calls", Usage(9, 5), (), made)


def test_glaive_chats_come_back_as_they_were(data_dir):
    path = data_dir / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    called = 0
    for row in rows:
        messages, tools = from_sharegpt(row)
        assert to_sharegpt(messages, tools) == {"conversations": row["conversations"], "tools": row["tools"]}
        known = {tool["function"]["name"] for tool in tools}
        for message, after in zip(messages, [*messages[1:], None], strict=True):
            for one in message.get("tool_calls", ()):
                called += 1
                assert one["function"]["name"] in known and after["tool_call_id"] == one["id"]
                written = json.dumps({"name": one["function"]["name"], "arguments": one["function"]["arguments"]})
                (found,) = read_calls(f"<tool_call>\n{written}\n</tool_call>")[1]
                assert found["function"] == one["function"]
    assert (len(rows), called) == (300, 211)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([("robot", "x")], "turn 0: unknown speaker 'robot'"),
        ([("human", "x"), ("observation", "y")], "turn 1: this observation answers no call"),
        ([("function_call", "add(1)")], "turn 0: a call is JSON with name and arguments"),
    ],
)
def test_chats_that_cannot_be_read_are_refused(row, reason):
    with pytest.raises(ValueError, match=reason):
        from_sharegpt({"conversations": [{"from": speaker, "value": value} for speaker, value in row]})


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        ("It is 5.", "It is 5.", []),
        ('{"name": "add", "arguments": {"x": 1}}', "", [("add", '{"x": 1}')]),
        ('{"name": "add", "parameters": {"x": 1}}', "", [("add", '{"x": 1}')]),
        ('[{"name": "a", "arguments": "{}"}, {"name": "b", "arguments": {}}]', "", [("a", "{}"), ("b", "{}")]),
        ('I add.\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>', "I add.", [("add", "{}")]),
        ('<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b", "arguments": {}}', "",
         [("a", "{}"), ("b", "{}")]),
        ("<tool_call>add(1, 2)</tool_call>", "", [("", "add(1, 2)")]),
        ('{"answer": 5}', '{"answer": 5}', []),
        ("[]", "[]", []),
    ],
)  # fmt: skip
def test_calls_are_found_in_texts(text, said, found):
    rest, made = read_calls(text)
    assert rest == said
    assert [(one["function"]["name"], one["function"]["arguments"]) for one in made] == found


def test_templates_get_values_and_never_none():
    chat = [*USER, {"role": "assistant", "content": None, "tool_calls": [call("add", '{"x": 1}', "c")]}]
    (_, told) = for_template(chat)
    assert told["content"] == "" and told["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert chat[1]["content"] is None and chat[1]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'


def test_calls_are_answered_until_the_model_speaks():
    two = calls(("add", '{"x": 2, "y": 3}'), ("add", "{}"), text="I add.")
    model = Scripted([two, calls(("", "add(1)")), "It is 5."])
    trace, chat = converse(model, Tools([add]), USER)
    assert (trace.answer, trace.ended, trace.question) == ("It is 5.", "finish", "What is 2 and 3?")
    assert [message["role"] for message in chat] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [m["content"] for m in chat if m["role"] == "tool"] == [
        "5",
        "Error: add needs ['x', 'y'], given []",
        "Error: no JSON with name and arguments: 'add(1)'",
    ]
    assert [m["tool_call_id"] for m in chat if m["role"] == "tool"] == ["c0", "c1", "c0"]
    told = [("I add.", 5), ("I add.", 0), ("", 5), ("It is 5.", 8)]
    assert [(step.thought, step.tokens) for step in trace.steps] == told
    assert model.asked[0][1].tools == Tools([add]).specifications
    assert model.asked[-1][0] == chat[:-1]


def test_loops_and_budgets_end_a_chat_with_every_call_answered():
    same = calls(*[("add", '{"x": 1, "y": 1}')] * 4)
    trace, chat = converse(Scripted(lambda prompt: same), Tools([add]), USER)
    assert trace.ended == "loop" and [m["role"] for m in chat] == ["user", "assistant", *["tool"] * 4]
    assert [m["content"] for m in chat[2:]] == ["2", *["2" + AGAIN] * 3]
    numbers = iter(range(99))
    each = Scripted(lambda prompt: calls(("add", json.dumps({"x": next(numbers), "y": 0}))))
    assert len(converse(each, Tools([add]), USER, budget=Budget(steps=3))[0].steps) == 3
    assert converse(each, Tools([add]), USER, budget=Budget(tokens=10))[0].ended == "tokens"


def test_the_oldest_answers_leave_a_full_window():
    def page(n: int) -> str:
        return f"{n}" * 300

    numbers = iter(range(1, 9))
    model = Scripted(lambda prompt: calls(("page", json.dumps({"n": next(numbers)}))), window=1500)
    trace, chat = converse(model, Tools([page]), USER, budget=Budget(step_tokens=50))
    assert trace.ended == "window" and "left out" in trace.steps[-1].notes[0]
    assert any(message["content"] == "(left out)" for message in model.asked[-1][0])
    assert all(message["content"] != "(left out)" for message in chat)
    with pytest.raises(ValueError, match="do not fit into a window of 60"):
        converse(Scripted([], window=60), Tools([add]), USER, budget=Budget(step_tokens=50))
