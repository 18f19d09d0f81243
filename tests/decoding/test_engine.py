"""Continuous batching against offline decoding: the same text whatever else is served, and nothing compiled anew."""

import queue
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.apps.serving import Ask, Full, UnknownModel
from research.decoding import Sampling, generate, side_by_side
from research.decoding import engine as engines
from research.decoding.engine import Engine
from research.models import build
from tests.models.conftest import tiny, tiny_config
from tests.weights.test_recipe import lora

END, PATIENCE = 59, 60
PROMPTS = ["sphinx", "of", "blackquartzjudgemyvow" * 2, "a"]


class Letters:
    """Token i is the letter chr(97 + i); no begin token, END ends a text."""

    bos_id, eos_id, chat_template, vocab_size = None, END, None, 61

    def encode(self, text, *, bos=False, eos=False, specials=True):
        return [ord(c) - 97 for c in text] + [END] * eos

    def decode(self, ids, *, specials=False):
        return "".join(chr(97 + i) for i in ids if i != END)

    def pieces(self, ids):
        return [f"<{i}>" for i in ids]


class Listener:
    """Collects the pieces of one request."""

    def __init__(self):
        self.pieces, self.arrived = [], queue.Queue()

    def __call__(self, piece):
        self.pieces.append(piece)
        self.arrived.put(piece)

    def whole(self):
        """(text, tokens, finish) once it has ended."""
        while not self.pieces or self.pieces[-1].finish is None:
            self.arrived.get(timeout=PATIENCE)
        return "".join(p.text for p in self.pieces), [t for p in self.pieces for t in p.tokens], self.pieces[-1].finish


def ask(engine, prompt, **options):
    heard = Listener()
    usual = {"model": "model", "max_new_tokens": 8, "temperature": 0.0}
    heard.number = engine.submit(Ask(prompt, **usual | options), heard)
    return heard


@pytest.fixture(scope="module", autouse=True)
def fronts():
    """Steps that read 8 slots, 16, 32 or all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "FRONT", 8)
        yield


@pytest.fixture(scope="module")
def decoder():
    model, params = tiny("llama", n_layers=2, max_length=64)
    adapters = {f"tuned{i}": lora(params, i, rank=i) for i in (1, 2)}
    return model, params, adapters


@pytest.fixture(scope="module")
def engine(decoder):
    model, params, adapters = decoder
    served = Engine(model, params, Letters(), slots=3, window=64, chunk=16, queue=6, adapters=adapters)
    yield served
    served.close()
    assert not served._thread.is_alive()


def offline(model, params, prompts, seeds, samplings=None, tokens=8):
    """(texts, log-probabilities) of the same requests without an engine."""
    sampling = side_by_side([Sampling(**one) for one in samplings]) if samplings else Sampling()
    out = generate(
        model, params, [Letters().encode(prompt) for prompt in prompts], max_new_tokens=tokens, sampling=sampling,
        stop_tokens=[END], tokenizer=Letters(), key=0, seeds=seeds,
    )  # fmt: skip
    return out.texts, [row[:length] for row, length in zip(out.logprobs, out.lengths, strict=True)]


SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 5, "min_p": 0.05},
    {"temperature": 0.9, "repetition_penalty": 1.5},
]


def test_a_request_gets_its_offline_text_whatever_else_is_served(decoder, engine):
    model, params, adapters = decoder
    trees = {"model": params, **adapters}
    cases = [
        (prompt, sampling, name, 10 * i + j)
        for i, prompt in enumerate(PROMPTS)
        for j, (sampling, name) in enumerate(zip(SAMPLINGS, [*trees, "tuned1", "model"], strict=True))
    ]
    running, found = [], []
    for prompt, sampling, name, seed in cases:  # at most four at a time are on their way, in three slots
        running.append(ask(engine, prompt, model=name, seed=seed, logprobs=0, **sampling))
        if len(running) == 4:
            found.append(running.pop(0).whole())
    found += [heard.whole() for heard in running]
    for name, weights_of in trees.items():
        mine = [i for i, case in enumerate(cases) if case[2] == name]
        prompts, samplings, _, seeds = zip(*(cases[i] for i in mine), strict=True)
        texts, logprobs = offline(model, weights_of, prompts, seeds, samplings)
        assert [found[i][0] for i in mine] == texts
        for i, expected in zip(mine, logprobs, strict=True):
            np.testing.assert_allclose([t.logprob for t in found[i][1]], expected, atol=1e-4)
    figures = engine.figures()
    assert figures["failures"] == 0 and figures["running"] == figures["queued"] == 0
    assert figures["requests"] >= len(cases) and figures["steps"] < figures["new_tokens"]


def test_nothing_is_compiled_once_it_is_warm(decoder):
    model, params, adapters = decoder
    served = Engine(model, params, Letters(), slots=3, window=64, chunk=16, adapters=adapters)
    for i, sampling in enumerate(SAMPLINGS):
        heard = ask(served, PROMPTS[i % 4], model=served.models[i % 3], logprobs=i, echo=i % 2 == 0, **sampling)
        assert heard.whole()[2] in ("stop", "length")
    assert served.figures()["compilations"] == 0
    served.close()


def test_an_echo_tells_the_prompt_and_what_the_model_gives_it(decoder, engine):
    model, params, _ = decoder
    prompt = PROMPTS[2]
    text, tokens, finish = ask(engine, prompt, max_new_tokens=0, echo=True, logprobs=2).whole()
    assert (text, finish) == (prompt, "length") and len(tokens) == len(prompt)
    ids = jnp.asarray([Letters().encode(prompt)])
    logits = jax.jit(lambda p: model.logits(p, model.apply(p, {"tokens": ids}).hidden))(params)
    expected = np.asarray(jax.nn.log_softmax(logits.astype("float32")))[0]
    assert tokens[0].logprob is None
    for i, told in enumerate(tokens[1:], 1):
        assert told.text == prompt[i]
        np.testing.assert_allclose(told.logprob, expected[i - 1, ids[0, i]], atol=1e-4)
        best = np.argsort(-expected[i - 1])[:2]
        assert [a[0] for a in told.alternatives] == best.tolist()
        np.testing.assert_allclose([a[2] for a in told.alternatives], expected[i - 1, best], atol=1e-4)
    both = ask(engine, prompt, echo=True, logprobs=0).whole()
    assert both[0] == prompt + offline(model, params, [prompt], [0])[0][0]


def test_a_stop_string_across_tokens_ends_a_text_and_is_not_told(decoder, engine):
    model, params, _ = decoder
    whole = offline(model, params, ["of"], [0])[0][0]
    stop = whole[2:4]
    text, _, finish = ask(engine, "of", stop=(stop,)).whole()
    assert finish == "stop" and text == whole[: whole.index(stop)]


def test_a_full_queue_a_cancelled_request_and_a_listener_that_goes(engine):
    long = [ask(engine, "sphinx", max_new_tokens=50, temperature=1.0, seed=i) for i in range(3)]
    for heard in long:
        heard.arrived.get(timeout=PATIENCE)
    waiting = []
    with pytest.raises(Full, match="requests are waiting already"):
        for _ in range(20):
            waiting.append(ask(engine, "of"))
    for heard in long:
        engine.cancel(heard.number)
    ends = [heard.whole()[2] for heard in long]
    assert set(ends) <= {"cancelled", "stop", "length"}
    assert all(heard.whole()[2] in ("stop", "length") for heard in waiting)

    def gone(piece):
        raise ConnectionError("nobody listens")

    engine.submit(Ask("of", "model", max_new_tokens=50), gone)
    assert ask(engine, "a").whole()[2] in ("stop", "length")
    deadline = time.monotonic() + PATIENCE
    while engine.figures()["running"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.figures()["running"] == 0


def test_a_fault_of_a_step_ends_its_requests_and_no_others(engine, monkeypatch):
    def broken(*args):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(engines.compiled, "step", broken)
        text, _, finish = ask(engine, "of").whole()
    assert finish == "error" and text == "RuntimeError: no memory"
    assert ask(engine, "of").whole()[2] in ("stop", "length")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "tuned3"}, UnknownModel, "unknown model 'tuned3'; have ['model', 'tuned1', 'tuned2']"),
        ({"prompt": "a" * 65}, ValueError, "has 65 tokens, the model takes at most 64"),
        ({"max_new_tokens": 63}, ValueError, "the window of 64 has room for 62"),
        ({"prompt": [200]}, ValueError, "token id 200, outside the model's vocabulary"),
        ({"prompt": []}, ValueError, "prompt 0 is empty"),
        ({"prompt": ["a"]}, ValueError, "a text, a list of token ids or a list of messages"),
        ({"prompt": [{"role": "user", "content": "a"}]}, ValueError, "no chat template"),
        ({"temperature": -1.0}, ValueError, "temperature must lie in"),
        ({"top_p": 0.0, "temperature": 0.0}, ValueError, "top_p must lie in"),
        ({"logprobs": 21}, ValueError, "logprobs must lie in 0..20"),
        ({"tools": ({"type": "function"},)}, ValueError, "has no place for tools"),
        ({"stop": ("",)}, ValueError, "must not hold an empty string"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(engine, options, error, message):
    with pytest.raises(error) as caught:
        ask(engine, options.pop("prompt", "of"), **options)
    assert message in str(caught.value)


def test_attention_maps_are_the_models(decoder, engine):
    model, params, _ = decoder
    tokens, maps = engine.attention("sphinx", "model")
    assert tokens == list("sphinx")
    ids = jnp.asarray([Letters().encode("sphinx")])
    expected = jax.jit(lambda p: model.apply(p, {"tokens": ids}, attentions=True).attentions)(params)[:, 0]
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    assert engine.nearest("model") == []
    with pytest.raises(ValueError, match="no embedding model"):
        engine.embed(["a"])


def test_an_encoder_decoder_is_served_too():
    model, params = tiny("t5", n_layers=1, n_encoder_layers=1, decoder_start_id=0)
    served = Engine(model, params, Letters(), slots=2, window=16, chunk=8)
    heard = [ask(served, prompt, seed=i, temperature=float(i)) for i, prompt in enumerate(PROMPTS[:2])]
    texts = [one.whole()[0] for one in heard]
    assert served.figures()["compilations"] == 0
    for i, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=False)):
        ids = Letters().encode(prompt, eos=True)
        alone = generate(
            model, params, [ids], max_new_tokens=8, sampling=Sampling(temperature=float(i)), stop_tokens=[END],
            tokenizer=Letters(), key=0, seeds=[i],
        )  # fmt: skip
        assert text == alone.texts[0]
    served.close()


def test_a_soft_prompt_stands_in_front_and_has_nearest_words():
    model, params = tiny("llama", n_layers=1)
    prompted = weights.attach(params, {"method": "prompt", "length": 3}, jax.random.key(0), config=model.config)
    served = Engine(model, prompted, Letters(), slots=2, window=24, chunk=8)
    assert [ask(served, "of").whole()[0]] == offline(model, prompted, ["of"], [0])[0]
    assert served.count("of") == 5
    near = served.nearest("model", 2)
    assert len(near) == 3 and all(len(row) == 2 and row[0][1] >= row[1][1] for row in near)
    assert [t.text for t in ask(served, "of", max_new_tokens=0, echo=True, logprobs=0).whole()[1]] == ["o", "f"]
    served.close()


def test_a_trained_prefix_is_read_beside_the_front_of_the_window():
    model, params = tiny("llama", n_layers=1)
    prefixed = weights.attach(params, {"method": "prefix", "length": 5}, jax.random.key(0), config=model.config)
    served = Engine(model, prefixed, Letters(), slots=2, window=24, chunk=8)
    heard = [ask(served, prompt, max_new_tokens=11) for prompt in ("of", "vow")]  # 13 and 14 tokens: two fronts
    texts = [one.whole()[0] for one in heard]
    assert served.figures()["compilations"] == 0
    assert texts == offline(model, prefixed, ["of", "vow"], [0, 1], tokens=11)[0]
    served.close()


def test_a_model_that_writes_nothing_is_refused():
    with pytest.raises(ValueError, match="writes no text"):
        Engine(build(tiny_config("bert")), {}, Letters())
