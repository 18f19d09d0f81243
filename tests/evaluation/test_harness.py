"""The LM evaluation harness: the same numbers from our backend and from its own torch backend on the same weights."""

import os

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")  # read once, when `datasets` is imported

import json
import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import processors

from experiments.harness import ROOT, evaluate, read_tasks
from research.data.chat import CHATML
from research.data.llama2c_huggingface import as_huggingface
from research.data.llama2c_tokenizer import Llama2cTokenizer
from research.evaluation import harness
from research.evaluation.harness import as_lm, rolling
from research.interop import load_pretrained, save_pretrained
from research.interop.llama2c import load_llama2c
from research.models import build, preset

pytest.importorskip("lm_eval", reason="needs the extra `harness`")

LENGTH = 192  # short, so that contexts are cut and texts need several windows
TASKS = ("sst2", "piqa", "shakespeare", "gsm8k")


class Request:
    """What the harness hands over: the arguments of one question."""

    def __init__(self, *args):
        self.args = args


def torch_backend(folder, **options):
    """The harness's own, on the CPU; what it warns of is its own affair."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4, **options)


@pytest.fixture(scope="module")
def pieces(data_dir):
    return as_huggingface(Llama2cTokenizer.load(data_dir / "stories260K" / "tokenizer.bin"))


@pytest.fixture(scope="module")
def stories(data_dir, pieces, tmp_path_factory):
    """(folder, model, params, tokenizer) of stories260K as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("stories")
    config, params = load_llama2c(data_dir / "stories260K" / "checkpoint_v1.bin")
    save_pretrained(folder, config.replace(family="llama"), params)
    pieces.chat_template = CHATML
    pieces.save(folder)
    config, params, _ = load_pretrained(folder)
    return folder, build(config), params, pieces


@pytest.fixture(scope="module")
def ours(stories):
    return as_lm(*stories[1:], name="stories", batch_size=8, length=LENGTH)


@pytest.fixture(scope="module")
def tasks(data_dir, tmp_path_factory):
    found = read_tasks(TASKS, ROOT / "experiments" / "harness_tasks", data_dir, tmp_path_factory.mktemp("datasets"))
    found[-1]["generation_kwargs"]["max_gen_toks"] = 16
    return found


@pytest.mark.oracle
def test_numbers_of_tasks_are_those_of_the_torch_backend(ours, stories, tasks):
    theirs = torch_backend(stories[0], max_length=LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = [evaluate(lm, tasks, limit=8, bootstrap_iters=10) for lm in (ours, theirs)]
    for name in TASKS:
        mine, right = ({k: v for k, v in r["results"][name].items() if k != "alias"} for r in both)
        assert len(mine) >= 2
        assert {k: v if isinstance(v, str) else f"{v:.4f}" for k, v in mine.items()} == {
            k: v if isinstance(v, str) else f"{v:.4f}" for k, v in right.items()
        }
        for a, b in zip(*(r["samples"][name] for r in both), strict=True):
            if name == "gsm8k":
                assert a["resps"] == b["resps"]  # the very texts
            else:
                flat = lambda sample: np.array(sample["resps"], np.float64).reshape(-1)  # noqa: E731
                np.testing.assert_allclose(flat(a), flat(b), atol=2e-3)


PAIRS = [("Once upon a", " time"), ("Once upon a ", "time, there was"), ("", "alone"), ("word " * 100, "x y z")]
TEXTS = ["Once upon a time. " * 40, "a", "", "Lily and Tom. " * 3]
WRITE = [
    ("Once upon a time", {"until": ["."], "max_gen_toks": 24}),
    ("Lily saw a big", {"until": [], "max_gen_toks": 8}),
    ("Once " * 150, {"until": ["\n"], "max_gen_toks": 8}),
]


def answers(lm):
    calls = [("loglikelihood", PAIRS), ("loglikelihood_rolling", [(t,) for t in TEXTS if t]), ("generate_until", WRITE)]
    return {name: getattr(lm, name)([Request(*args) for args in asked], disable_tqdm=True) for name, asked in calls}


def same_answers(mine, right):
    for (a, greedy), (b, wanted) in zip(mine["loglikelihood"], right["loglikelihood"], strict=True):
        assert a == pytest.approx(b, abs=1e-3) and greedy == wanted
    assert mine["loglikelihood_rolling"] == pytest.approx(right["loglikelihood_rolling"], rel=1e-5, abs=1e-3)
    assert mine["generate_until"] == right["generate_until"]
    assert any(text for text in mine["generate_until"])


@pytest.mark.oracle
def test_requests_at_the_edges(ours, stories):
    same_answers(answers(ours), answers(torch_backend(stories[0], max_length=LENGTH)))


@pytest.mark.oracle
def test_an_encoder_decoder(pieces, tmp_path):
    sizes = {"vocab_size": 512, "d_model": 16, "n_layers": 1, "n_encoder_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    config = preset("t5-small").replace(**sizes, d_ff=32, head_dim=8, max_length=LENGTH, eos_id=2, logit_scale=0.25)
    model = build(config)
    draw = lambda leaf: jnp.asarray(np.random.default_rng(0).normal(0, 0.4, leaf.shape), leaf.dtype)  # noqa: E731
    params = jax.tree.map(draw, model.abstract())
    tokenizer = type(pieces)(type(pieces.tokenizer).from_str(pieces.tokenizer.to_str()), pieces.config)
    tokenizer.tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    save_pretrained(tmp_path, config, params)
    tokenizer.save(tmp_path)
    mine, right = answers(as_lm(model, params, tokenizer, batch_size=4)), answers(torch_backend(tmp_path))
    # Its torch backend lets an encoder-decoder write longer than asked, by the padded length of the prompts.
    short = [text[: len(own)] for text, own in zip(right["generate_until"], mine["generate_until"], strict=True)]
    same_answers(mine, right | {"generate_until": short})


@pytest.mark.oracle
def test_the_chat_template_is_that_of_transformers(ours, stories):
    theirs = torch_backend(stories[0])
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Who? \n"}]
    assert ours.apply_chat_template(talk) == theirs.apply_chat_template(talk)
    talk.append({"role": "assistant", "content": "It is"})
    assert ours.apply_chat_template(talk, False) == theirs.apply_chat_template(talk, False)
    assert ours.chat_template(True) == CHATML and ours.chat_template(False) is None


@pytest.mark.parametrize(("n", "length"), [(0, 4), (1, 4), (4, 4), (5, 4), (10, 4), (3, 1), (9, 3)])
def test_windows_are_those_of_the_harness(n, length):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    ids = list(range(100, 100 + n))
    windows = get_rolling_token_windows(token_list=ids, prefix_token=1, max_seq_len=length, context_len=1)
    assert rolling(1, ids, length) == [make_disjoint_window(window) for window in windows]


def test_nothing_is_asked_twice(stories, tmp_path, monkeypatch):
    read, cache = [], tmp_path / "answers.jsonl"
    score_rows = harness.score_rows
    monkeypatch.setattr(harness, "score_rows", lambda m, p, rows, **k: read.extend(rows) or score_rows(m, p, rows, **k))
    asked = [Request(*pair) for pair in [*PAIRS, PAIRS[0], PAIRS[1]]]
    make = lambda: as_lm(*stories[1:], batch_size=8, length=LENGTH, cache=cache)  # noqa: E731
    first = make().loglikelihood(asked)
    assert len(read) == len(PAIRS) and first[0] == first[4] and first[1] == first[5]
    assert make().loglikelihood(asked) == first and len(read) == len(PAIRS)
    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])  # as a kill leaves it
    again = make().loglikelihood(asked)  # one row alone is rounded in another order than among others
    np.testing.assert_allclose([x for x, _ in again], [x for x, _ in first], rtol=1e-5)
    assert [y for _, y in again] == [y for _, y in first] and len(read) == len(PAIRS) + 1
    assert len({json.loads(line)["key"] for line in cache.read_text().splitlines()[1:]}) == len(PAIRS)
    with pytest.raises(ValueError, match=r"was made with length=192 \(now 40\)"):
        as_lm(*stories[1:], batch_size=8, length=40, cache=cache)


def test_drawn_answers_differ_from_each_other_and_return(stories):
    settings = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    asked = [Request("Once upon a", settings)] * 4
    first, again = (as_lm(*stories[1:], batch_size=8, length=LENGTH).generate_until(asked) for _ in range(2))
    assert first == again and len(set(first)) > 1
