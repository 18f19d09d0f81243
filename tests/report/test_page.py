import math
import re
from html.parser import HTMLParser

import pytest

from research import report

VOID = {"meta", "br", "img", "hr"}


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps addresses, attributes of tokens and visible text."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.visible, self.chances = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [v for k, v in attributes.items() if k in ("src", "href", "xlink:href")]
        if attributes.get("class") == "t":
            self.chances.append(attributes["style"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.visible.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def whole_page() -> str:
    drawing = report.svg(report.curves({"a": ([1, 2], [2, 1])}, x_label="step", y_label="loss"))
    samples = report.section(
        "Samples & more",
        report.columns(
            report.tokens(["the", " <b>"], [0.0, math.log(0.25)], prompt="Q: ", title="greedy"),
            report.details("more", report.text("x < y"), report.note("met", good=True)),
        ),
    )
    numbers = report.section(
        "Numbers",
        report.cards([("bits per byte", 1.5, "held out")]),
        report.table(["method", "value"], [["xz", 1.9], ["ours", 1.7]], strong=[1]),
        report.figure(drawing, "Loss."),
    )
    return report.document("A <life>", "lead", [numbers, samples], footer="seed 0")


def test_page_is_well_formed_and_lists_its_sections():
    reader = read(whole_page())
    assert reader.addresses[:2] == ["#numbers", "#samples-more"]
    visible = "".join(reader.visible)
    for part in ("A <life>", "Samples & more", "x < y", "1.9", "seed 0", " <b>"):
        assert part in visible


def test_page_fetches_nothing():
    page = whole_page()
    assert all(address.startswith("#") for address in read(page).addresses)
    assert not re.search(r"<script|@import|url\((?!#)|<link|<img", page)
    assert "prefers-color-scheme: dark" in page


def test_tokens_carry_their_probability():
    assert read(report.tokens(["a", "b"], [0.0, math.log(0.25)])).chances == ["--p:1.000", "--p:0.250"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: report.tokens(["a"], []), "1 tokens.*got 0"),
        (lambda: report.tokens(["a"], [0.5]), "at or below 0"),
        (lambda: report.tokens(["a"], [math.nan]), "at or below 0"),
        (lambda: report.table(["a"], [[1, 2]]), "1 columns"),
        (lambda: report.figure("<img>", ""), "<svg>"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
