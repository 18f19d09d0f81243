"""A real headless Chromium before the page of a live server with a scripted engine."""

import json
import shutil

import pytest

from research.apps.labelling import Board
from research.apps.page import Services
from research.apps.retrieval.document import Chunk
from research.apps.retrieval.prompt import Answer
from research.apps.retrieval.store import Hit
from tests.apps.server.conftest import served
from tests.apps.server.scripted import Scripted

TRACE = {
    "model": "scripted", "question": "Who wrote it?", "answer": "Ann", "ended": "finish",
    "steps": [
        {"thought": "I look.", "action": "Search", "argument": "it", "observation": "Written by Ann.", "notes": []},
        {"thought": "Found.", "action": "Finish", "argument": "Ann", "observation": "", "notes": ["mended"]},
    ],
}  # fmt: skip


class Lit(Scripted):
    """With attention maps and a soft prompt, as an engine with a model has them."""

    def attention(self, text, model):
        import numpy as np

        maps = np.tril(np.ones((2, 3, len(text), len(text))))
        return list(text), maps / maps.sum(-1, keepdims=True)

    def nearest(self, model, k=5):
        return [[("hello", 0.9), ("hi", 0.5)]]


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; skips where it, its driver or selenium is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `browser`)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A live server with everything to show, and the folder that it works on."""
    folder = tmp_path_factory.mktemp("page")
    samples = [
        {"id": "a", "prompt": "Say hello.", "completions": ["hello", "go away", "hi"]},
        {"id": "b", "prompt": "2 + 2?", "completions": ["4", "5"]},
    ]
    (folder / "labels").mkdir()
    (folder / "labels" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (folder / "labels" / "guidelines.md").write_text("Be kind.")
    (folder / "traces").mkdir()
    (folder / "traces" / "one.jsonl").write_text(json.dumps(TRACE) + "\n")
    for name, slope in (("first", 1.0), ("second", 2.0)):
        (folder / "runs" / name).mkdir(parents=True)
        rows = [{"step": i, "split": "train", "loss": 5 - slope * i / 10} for i in range(1, 20)]
        (folder / "runs" / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    passage = Hit(Chunk("Ann wrote <b>it</b> in 1999.", "book.md", 7, 30, "The book", "Origins"), 0.8)
    services = Services(
        board=Board(folder / "labels"),
        agreement=lambda votes, who: {"alpha": 0.25},
        ask=lambda question: Answer(f"Ann did [1], see also [1, 2]. ({question})", (passage,), (2,), (passage,), 1),
        act=lambda task: TRACE | {"question": task},
        traces=folder / "traces",
        runs=folder / "runs",
    )
    engine = Lit({"Once upon a time": ", a cat é😀 sat."})
    with served(engine, page=services) as server:
        yield server.url, folder


@pytest.fixture(scope="module")
def real_page():
    """A live server before a real engine: a tiny random decoder with an adapter."""
    from research.decoding.engine import Engine
    from tests.decoding.test_engine import Letters
    from tests.models.conftest import tiny
    from tests.weights.test_recipe import lora

    model, params = tiny("llama", n_layers=2, max_length=128)
    engine = Engine(model, params, Letters(), slots=2, chunk=16, adapters={"tuned": lora(params, 1, rank=1)})
    with served(engine, page=Services()) as server:
        yield server.url, engine
