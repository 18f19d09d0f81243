"""The page as people use it: by mouse and by keys, in a wide and in a narrow window, without a word on the console."""

import json
import time

import pytest

from tests.decoding.test_engine import ask

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed (extra `browser`)").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

SIZES = {"wide": (1280, 900), "narrow": (390, 800)}
VIEWS = ("playground", "labels", "documents", "agents", "runs")
PATIENCE = 30


@pytest.fixture(autouse=True)
def silent(browser):
    """Nothing may be wrong on the console."""
    browser.get_log("browser")
    yield
    entries = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not entries, entries


def show(browser, page, view, size="wide"):
    browser.set_window_size(*SIZES[size])
    browser.get("about:blank")
    browser.get(f"{page[0]}/#{view}")
    until(lambda: browser.find_elements(By.ID, f"view-{view}"))


def until(true):
    """What `true` returns, once it does."""
    end = time.monotonic() + PATIENCE
    while True:
        if found := true():
            return found
        assert time.monotonic() < end, "it did not appear"
        time.sleep(0.05)


def text(browser, css):
    """What is seen there, read at once: elements may be drawn anew at any time."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')"
    return browser.execute_script(script, css)


def click(browser, css):
    browser.find_element(By.CSS_SELECTOR, css).click()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_into_every_window(browser, page, view, size):
    show(browser, page, view, size)
    assert browser.find_element(By.ID, f"tab-{view}").get_attribute("aria-selected") == "true"
    time.sleep(0.2)
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, textarea')].filter(e => e.offsetParent && "
        "!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert not unnamed


def test_strategies_side_by_side_with_probabilities(browser, page):
    show(browser, page, "playground")
    browser.find_element(By.ID, "prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    until(lambda: text(browser, ".columns").count("(stop)") == 2)
    assert text(browser, ".columns .text").count("Once upon a time, a cat é😀 sat.") == 2
    tokens = browser.find_elements(By.CSS_SELECTOR, ".columns .token")
    browser.execute_script("arguments[0].focus()", tokens[2])
    assert "60.7 %" in until(lambda: text(browser, "#hover"))  # exp(-0.5)
    click(browser, "#attention summary")
    click(browser, "#attention button")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".map tr")) == len("Once upon a time"))
    assert "0.333" in browser.find_element(By.CSS_SELECTOR, ".map tr:nth-child(3) td").get_attribute("title")
    assert "hello" in text(browser, "#soft-prompts")


def test_a_real_model_writes_and_shows_where_it_looked(browser, real_page):
    show(browser, real_page, "playground")
    assert text(browser, "#tabs").split() == ["Playground"]
    prompt = browser.find_element(By.ID, "prompt")
    prompt.clear()
    prompt.send_keys("sphinx", Keys.CONTROL, Keys.ENTER)
    until(lambda: text(browser, ".columns").count("(length)") + text(browser, ".columns").count("(stop)") == 2)
    assert real_page[1].figures()["compilations"] == 0
    greedy = ask(real_page[1], "sphinx", max_new_tokens=64).whole()[0]
    assert browser.find_element(By.CSS_SELECTOR, ".columns .text").text.startswith(f"sphinx{greedy[:40]}")
    click(browser, "#attention summary")
    click(browser, "#attention button")
    rows = until(lambda: browser.find_elements(By.CSS_SELECTOR, ".map tr"))
    assert len(rows) == len("sphinx")


def test_completions_are_ranked_by_keys_and_by_dragging(browser, page):
    show(browser, page, "labels")
    name = browser.find_element(By.ID, "labeller")
    name.clear()
    name.send_keys("ann")
    click(browser, "#label")
    until(lambda: "Say hello." in text(browser, "#view-labels"))
    assert "Be kind." in text(browser, "#view-labels details")

    def order():
        return [e.text.split("\n")[-1] for e in browser.find_elements(By.CSS_SELECTOR, "ol.rank li")]

    for place, wanted in enumerate(["hello", "hi", "go away"]):  # by keys: each goes up to its place
        while order().index(wanted) > place:
            browser.find_elements(By.CSS_SELECTOR, "ol.rank li")[order().index(wanted)].send_keys(Keys.ARROW_UP)
    items = browser.find_elements(By.CSS_SELECTOR, "ol.rank li")
    items[1].send_keys("=")
    items[1].send_keys(Keys.ENTER)
    until(lambda: "1 of 2" in text(browser, "#view-labels"))
    folder = page[1] / "labels" / "rankings"
    row = json.loads((folder / "ann.jsonl").read_text())
    assert dict(zip(row["completions"], row["ranks"], strict=True)) == {"hello": 1, "hi": 1, "go away": 3}
    # By dragging: Chromium's driver does not start a drag of its own, so its events are sent.
    before = order()
    browser.execute_script(
        "const [a, b] = document.querySelectorAll('ol.rank li'); const data = new DataTransfer();"
        "a.dispatchEvent(new DragEvent('dragstart', {dataTransfer: data}));"
        "b.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))"
    )
    assert order() == before[::-1]
    click(browser, "#ranked")
    until(lambda: "All samples are ranked" in text(browser, "#view-labels"))
    click(browser, "#undo")
    until(lambda: "1 of 2" in text(browser, "#view-labels"))
    name = browser.find_element(By.ID, "labeller")
    name.clear()
    name.send_keys("bob")
    click(browser, "#label")
    until(lambda: "0 of 2" in text(browser, "#view-labels"))
    click(browser, "#ranked")
    until(lambda: "alpha" in text(browser, "#agreement"))


def test_a_citation_opens_its_passage_and_text_stays_text(browser, page):
    show(browser, page, "documents", "narrow")
    field = browser.find_element(By.ID, "question")
    field.send_keys("who?", Keys.ENTER)
    until(lambda: "Ann did [1]" in text(browser, "#answers"))
    click(browser, ".cite")
    assert "Ann wrote <b>it</b> in 1999." in until(lambda: text(browser, "#passage .said"))
    assert "The book > Origins" in text(browser, "#passage")
    assert "1 more did not fit" in text(browser, "#answers")


def test_an_agent_is_followed_step_by_step(browser, page):
    show(browser, page, "agents")
    until(lambda: "I look." in text(browser, "#steps"))
    assert "Finish" not in text(browser, "#steps")
    click(browser, "#next-step")
    assert "Finish[Ann]" in text(browser, "#steps") and "mended" in text(browser, "#steps")
    browser.find_element(By.ID, "task").send_keys("a task of mine", Keys.ENTER)
    until(lambda: "a task of mine" in text(browser, "#trace"))


def test_curves_grow_while_a_run_writes(browser, page):
    show(browser, page, "runs")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#run-names input")) == 2)
    # Quicker than their rows come, which are added once all the same.
    each = "document.querySelectorAll('#run-names input').forEach(box => { for (let i = 0; i < 4; i++) box.click(); "
    browser.execute_script(each + "if (!box.checked) box.click(); })")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "svg.chart polyline")) == 2)
    lines = browser.execute_script(
        "return [...document.querySelectorAll('svg.chart polyline')].map(line => line.points.numberOfItems)"
    )
    assert lines == [19, 19]
    assert "first: 3.100 at step 19" in text(browser, ".legend")
    with (page[1] / "runs" / "first" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 20, "split": "train", "loss": 3.0}) + '\n{"step": 21, "spl')
    until(lambda: "first: 3.000 at step 20" in text(browser, ".legend"))


def test_tabs_are_walked_by_arrows(browser, page):
    show(browser, page, "playground")
    browser.find_element(By.ID, "tab-playground").send_keys(Keys.ARROW_LEFT)
    until(lambda: browser.find_element(By.ID, "tab-runs").get_attribute("aria-selected") == "true")
    assert browser.switch_to.active_element.get_attribute("id") == "tab-runs"


def test_what_goes_wrong_is_said(browser, page):
    show(browser, page, "labels")
    name = browser.find_element(By.ID, "labeller")
    name.clear()
    name.send_keys("../etc")
    click(browser, "#label")
    assert "a labeller's name" in until(lambda: text(browser, "#notice"))
    browser.get_log("browser")  # a refused request is on the console, as it should be
