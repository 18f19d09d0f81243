"""Bad input of asking, storing, the evaluation command and the harness adapter: one line, before work is lost."""

import io
import json

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from configs import evaluate as configured
from configs import harness as harness_configured
from experiments import evaluate, harness
from research.apps.prompting import Item, Task
from research.data.byte_tokenizer import ByteTokenizer
from research.evaluation import ask
from research.evaluation.ask import Asked
from research.evaluation.harness import as_lm
from research.evaluation.journal import Journal
from research.models import build, preset

BYTES = ByteTokenizer()
SIZES = {"vocab_size": BYTES.vocab_size, "d_model": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "d_ff": 32}
MODEL = build(preset("gpt2").replace(**SIZES, max_length=32))
ENCODER = build(preset("bert-base").replace(**SIZES, max_length=32))
FREE = Task("free", [Item("a", "Q", answers=("x",))], ("exact_match",), max_new_tokens=8)
ONE = [Asked(FREE.items[0], "Q")]


class Request:
    def __init__(self, *args):
        self.args = args


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), MODEL.abstract())


@pytest.fixture
def data(tmp_path):
    """A data folder with two reviews."""
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "dev.tsv").write_text("sentence\tlabel\ngood \t1\nbad \t0\n")
    return tmp_path


def lm(params, **options):
    pytest.importorskip("lm_eval", reason="needs the extra `harness`")
    return as_lm(MODEL, params, BYTES, **options)


def written(folder, text):
    path = folder / "answers.jsonl"
    path.write_text(text)
    return Journal(path, {"seed": 0})


def run(folder, **changes):
    settings = configured.get_config("tiny").to_dict() | {"data": str(folder)} | changes
    evaluate.work(settings, folder / "out", Console(file=io.StringIO()))


def run_harness(folder, **changes):
    pytest.importorskip("lm_eval", reason="needs the extra `harness`")
    settings = harness_configured.get_config("tiny").to_dict() | {"data": str(folder)} | changes
    harness.work(settings, folder / "out", Console(file=io.StringIO()))


HEAD = json.dumps({"settings": {"seed": 0}}) + "\n"
SERVED = {"name": "far", "url": "http://localhost:1/v1", "model": "m"}
CASES = {
    "no portion": (lambda w, d: list(ask.portions(ONE, 0)), "at least 1 question, given 0"),
    "nothing to compare": (lambda w, d: ask.choose(MODEL, w, BYTES, FREE, ONE), "free: item 'a' has no choices"),
    "unknown cut": (lambda w, d: ask.write(MODEL, w, BYTES, FREE, ONE, long="trim"), "unknown long='trim'; have"),
    "no room for the answer": (
        lambda w, d: ask.write(MODEL, w, BYTES, FREE, [Asked(FREE.items[0], "x" * 30)]),
        "item 'a' has a prompt of 30 tokens; beside 8 new ones the model takes 25: fewer examples, or long='cut'",
    ),
    "too few answers": (
        lambda w, d: ask.write_by(lambda prompts: [], FREE, ONE),
        "one text per prompt; asked 1 prompts, it gave 0 answers",
    ),
    "answers that are no texts": (lambda w, d: ask.write_by(lambda prompts: [3], FREE, ONE), "among them int"),
    "line that is no JSON": (lambda w, d: written(d, HEAD + "{oops\n"), "answers.jsonl:2: not JSON"),
    "line without a key": (
        lambda w, d: written(d, HEAD + '{"a": 1}\n'),
        r"answers.jsonl:2: expected settings in line 1",
    ),
    "file of something else": (lambda w, d: written(d, '{"a": 1}\n'), "answers.jsonl:1: expected settings in line 1"),
    "a key twice": (lambda w, d: written(d, HEAD + '{"key": "a"}\n' * 2), "answers.jsonl would hold 'a' twice"),
    "other settings": (
        lambda w, d: written(d, HEAD.replace("0", "5")),
        r"answers.jsonl was made with seed=5 \(now 0\): choose another folder, or move this file away",
    ),
    "unknown task": (
        lambda w, d: run(d, tasks=("glue/sst3",)),
        "unknown benchmark 'glue/sst3', did you mean 'glue/sst2'",
    ),
    "no task": (lambda w, d: run(d, tasks=()), "nothing to ask: name at least one task"),
    "no shots": (lambda w, d: run(d, tasks=("glue/sst2",), shots=()), "and one number of shots"),
    "unknown order": (lambda w, d: run(d, order="balance"), "unknown order 'balance', did you mean 'balanced'"),
    "negative limit": (lambda w, d: run(d, tasks=("glue/sst2",), limit=-1), "0 for all; given -1"),
    "model without a folder": (
        lambda w, d: run(d, models=({"name": "a"},)),
        r"a model is .*'folder'.*got {'name': 'a'}",
    ),
    "model with an unknown field": (
        lambda w, d: run(d, models=({"name": "a", "folder": "b", "path": "c"},)),
        "a model is .*'path': 'c'",
    ),
    "two models of one name": (
        lambda w, d: run(d, models=({"name": "a", "folder": "b"},) * 2),
        r"names of their own; got \['a', 'a'\]",
    ),
    "likelihoods of a served model": (
        lambda w, d: run(d, models=(SERVED,), tasks=("glue/sst2",), shots=(0,)),
        "glue/sst2 compares choices by their likelihood, which a served model does not give",
    ),
    "more shots than the data has": (
        lambda w, d: run(d, models=(SERVED,), tasks=("glue/sst2",), shots=(3,)),
        "glue/sst2: k=3 examples; beside item",
    ),
    "harness with an encoder": (
        lambda w, d: pytest.importorskip("lm_eval") and as_lm(ENCODER, w, BYTES),
        "needs a model that predicts the next token; given encoder",
    ),
    "harness with a length beyond the model": (
        lambda w, d: lm(w, length=64),
        "length=64 does not fit the model, which takes 1 to 32",
    ),
    "harness with an empty continuation": (
        lambda w, d: lm(w).loglikelihood([Request("a", "")], True),
        "context 'a' and continuation '' give 1 and 0 tokens",
    ),
    "harness with an unknown knob": (
        lambda w, d: lm(w).generate_until([Request("a", {"temprature": 1})], True),
        "unknown generation setting 'temprature', did you mean 'temperature'",
    ),
    "harness without room": (
        lambda w, d: lm(w).generate_until([Request("a", {"max_gen_toks": 99})], True),
        "99 new tokens leave no room for a prompt in a model of 32 tokens",
    ),
    "harness without a chat template": (lambda w, d: lm(w).apply_chat_template([]), "has no chat template"),
    "harness without tasks": (lambda w, d: run_harness(d, tasks=()), "no tasks: name at least one"),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(name, params, data):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(params, data)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_costs_nothing_that_was_stored(data, monkeypatch):
    (data / "svamp").mkdir()
    (data / "svamp" / "svamp.jsonl").write_text('{"input": "What is 1 and 1?", "target": 2.0}\n')
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ConnectionError, match=r"svamp: 1 of 1 prompts got no answer.*tried 4 times"):
        run(data, models=(SERVED,), tasks=("svamp",), shots=(0,))
    assert len((data / "out" / "answers" / "far-svamp-0.jsonl").read_text().splitlines()) == 1  # the settings
