"""Tools from signatures, checked arguments, arithmetic without code, what hangs; schemas against LangChain's."""

import json
import math
import random
import time
from typing import Literal

import pytest

from research.apps.arithmetic import calculator
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Document
from research.apps.retrieval.retriever import Retriever
from research.apps.retrieval.sqlite import SQLiteStore
from research.apps.retrieval.store import Entry
from research.apps.standard_tools import python_tool, search_tool
from research.apps.tools import Tools, tool
from tests.apps.retrieval.hashed import Hashed


def order(
    item: str, count: int, price: float = 1.5, tags: list[str] | None = None, size: Literal["s", "l"] = "s"
) -> str:
    """Orders something
    from the shop.

    More that the model need not know.

    Args:
      item: what is ordered
      count: how many,
        at least one
    """
    return f"{count} {item} {price} {tags} {size}"


def test_a_schema_comes_from_signature_and_docstring():
    made = tool(order).specification["function"]
    assert (made["name"], made["description"]) == ("order", "Orders something from the shop.")
    assert made["parameters"]["required"] == ["item", "count"]
    properties = made["parameters"]["properties"]
    assert properties["item"] == {"type": "string", "description": "what is ordered"}
    assert properties["count"] == {"type": "integer", "description": "how many, at least one"}
    assert properties["tags"]["anyOf"] == [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]
    assert properties["size"] == {"type": "string", "enum": ["s", "l"], "default": "s"}
    json.dumps(made)


@pytest.mark.oracle
def test_schemas_are_those_of_langchain():
    convert = pytest.importorskip("langchain_core.utils.function_calling").convert_to_openai_tool

    def plain(a: str, b: int, c: float, d: bool, e: list[int], f: dict[str, float], g: Literal["x", "y"], h: str = "z"):
        """Does it.

        Args:
            a: first
            b: second
        """

    ours, theirs = tool(plain).specification, convert(plain)
    for properties in (ours["function"]["parameters"]["properties"], theirs["function"]["parameters"]["properties"]):
        properties["h"].pop("default", None)
    assert ours == theirs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"item": "tea", "count": 2}', "2 tea 1.5 None s"),
        ({"item": "tea", "count": 2.0, "price": 3, "size": "l"}, "2 tea 3.0 None l"),
        ('"tea", 2, 4.5, ["a"]', "2 tea 4.5 ['a'] s"),
        ('{"item": "tea", "count": 2, "tags": null}', "2 tea 1.5 None s"),
        ('{"item": "tea"}', "Error: order needs ['count'], given ['item']"),
        ('{"item": "tea", "cuont": 2}', "Error: order has no parameter 'cuont', did you mean 'count'?; has"),
        ('{"item": "tea", "count": "two"}', "Error: order, count: expected integer, given 'two'"),
        ('{"item": "tea", "count": true}', "Error: order, count: expected integer, given True"),
        ('{"item": "tea", "count": 1.5}', "Error: order, count: expected integer, given 1.5"),
        ('{"item": "tea", "count": 1, "tags": [1]}', "Error: order, tags: expected array or null, given [1]"),
        ('{"item": "tea", "count": 1, "size": "m"}', "Error: order, size: 'm' is none of ['s', 'l']"),
        ("tea, two", "Error: order takes (item: string, count: integer, price: number, tags: any, size: string)"),
        ("1, 2, 3, 4, 5, 6", "Error: order takes 5 arguments"),
    ],
)
def test_arguments_are_read_and_checked(arguments, expected):
    seen = Tools([order]).call("Order", arguments)
    assert seen.text.startswith(expected)
    assert seen.ok == (not expected.startswith("Error"))


def test_one_text_needs_no_quotes():
    def echo(text: str, loud: bool = False) -> str:
        return text.upper() if loud else text

    tools = Tools([echo])
    assert tools.call("echo", 'a "b", {c}').text == 'a "b", {c}'
    assert tools.call("echo", '{"text": "a", "loud": true}').text == "A"
    assert Tools([tool(lambda: 7, "seven")]).call("seven", "").text == "7"


def test_what_fails_hangs_or_is_long_is_told():
    def hangs() -> None:
        """Hangs."""
        time.sleep(3)

    def fails() -> None:
        raise KeyError("gone")

    def long() -> list[int]:
        return list(range(9999))

    tools = Tools([hangs, fails, long], timeout=0.1, longest=50)
    begun = time.monotonic()
    assert tools.call("hangs", "") == ("Error: hangs gave nothing within 0.1 seconds", False)
    assert time.monotonic() - begun < 1
    assert tools.call("fails", "{}") == ("Error: fails failed: KeyError: 'gone'", False)
    assert (
        tools.call("lnog", "").text
        == "Error: unknown tool 'lnog', did you mean 'long'?; have ['fails', 'hangs', 'long']"
    )
    assert tools.call("long", "").text.endswith("... (cut off after 50 of 58884 characters)")


def test_functions_that_no_model_could_call_are_refused():
    def bare(x): ...
    def many(*x: int): ...
    def strange(x: set): ...

    for function, reason in ((bare, "type annotation"), (many, "called by name"), (strange, "cannot describe")):
        with pytest.raises(ValueError, match=rf"tool {function.__name__}, parameter x: .*{reason}"):
            tool(function)
    with pytest.raises(ValueError, match="same name"):
        Tools([order, order])


FORMS = {
    "({} + {})": lambda a, b: a + b,
    "({} - {})": lambda a, b: a - b,
    "{} * {}": lambda a, b: a * b,
    "({} / ({} + 100))": lambda a, b: a / (b + 100),
    "max({}, {})": max,
    "sqrt(({}) ** 2 + abs({}))": lambda a, b: math.sqrt(a**2 + abs(b)),
    "-({} // 7 + {} % 5)": lambda a, b: -(a // 7 + b % 5),
}


@pytest.mark.parametrize("seed", range(3))
def test_the_calculator_is_pythons_arithmetic(seed):
    generator = random.Random(seed)

    def made(depth):
        """(text, value)"""
        if depth == 0:
            number = generator.choice([generator.randint(0, 99), round(generator.uniform(0, 9), 2)])
            return str(number), number
        form, function = generator.choice(list(FORMS.items()))
        (left, a), (right, b) = made(depth - 1), made(depth - 1)
        return form.format(left, right), function(a, b)

    for _ in range(50):
        text, value = made(generator.randint(0, 3))
        assert float(calculator(text)) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert calculator(" 2 ** 100 ") == str(2**100) and calculator("6 / 2") == "3" and calculator("log(e) + pi") > "4.14"


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "x", "__import__('os')", "(1).real", "[1]", "'a' * 9", "1 if 1 else 2", "lambda: 1", "True", "1; 2",
     "9 ** 9 ** 9", "2 ** 4096 * 2 ** 4096", "1 / 0", "(-1) ** 0.5", "1e308 * 10", "sqrt(-1)", "sqrt()", "exp(9999)",
     "1, 2", "max(x=1)", "sin", "abs.__class__", "(" * 300 + "1" + ")" * 300, "-" * 499 + "1", "1" * 501, "f'{1}'"],
)  # fmt: skip
def test_nothing_else_is_arithmetic(text):
    seen = Tools([calculator]).call("calculator", {"expression": text})
    if text == "-" * 499 + "1":
        assert seen.text == "-1"
    else:
        assert seen.text.startswith("Error: calculator failed: ValueError") and len(seen.text) < 1200


def test_a_search_numbers_the_passages_of_a_store(tmp_path):
    store, embed = SQLiteStore(tmp_path / "store", embedder="hashed", width=32), Hashed()
    for source, title, text in (
        ("a", "Apples", "It is red."),
        ("b", "", "It is blue."),
        ("c", "Pears", "A green red."),
    ):
        chunks = Chunker()(Document(source, text, title))
        store.upsert([Entry(source, "", chunks, embed([chunk.passage for chunk in chunks]))])
    tools = Tools([search_tool(Retriever(store, None, "bm25"), k=2)])
    assert tools.call("search", "red apples").text == "[1] Apples\nIt is red.\n[2] Pears\nA green red."
    assert tools.call("search", "taste").text == "Nothing was found."
    store.close()


def test_python_runs_in_the_sandbox():
    from research.apps import sandbox

    try:
        sandbox.run("", level="bubblewrap")
    except sandbox.NoSandboxError as reason:
        pytest.skip(str(reason))
    tools = Tools([python_tool()])
    assert tools.call("python", "print(sum(range(10)))").text.strip() == "45"
    assert tools.call("python", "x = 1").text == "The program printed nothing."
    failed = tools.call("python", "1 / 0")
    assert not failed.ok and "ZeroDivisionError" in failed.text
