"""Compression: what each form does to the weights, its cost at rest, who is on the frontier, what a budget buys."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.compress import FORMS, PLAIN, get_config
from experiments import compress
from experiments import smaller as forms
from experiments.quantized import Stories
from experiments.smaller import kept, pareto, smaller, sparsity
from research.core import tree
from research.interop import load_pretrained
from research.interop.run import load_run
from research.models import build
from tests.experiments.test_quantize import LENGTH, SETTINGS, example
from tests.models.conftest import tiny

RECOVERY = {"steps": 4, "learning_rate": 1e-3, "lora_rank": 2, "batches": 1}


@pytest.fixture(scope="module")
def stories():
    model, params = tiny("llama", n_layers=2)
    rng = np.random.default_rng(0)
    texts = [example([1, *rng.integers(3, 60, n)]) for n in (LENGTH - 1, 5, 9, LENGTH - 1, 7, 3)]
    settings = {**SETTINGS, "recovery": RECOVERY}
    return Stories(model.config, params, settings, 1, texts, {"own samples": texts[:3], "published stories": texts[3:]})


def form(name):
    return PLAIN | FORMS[name]


def test_every_form_is_named_and_every_rule_is_known():
    config = get_config()
    assert set(config.forms) == set(FORMS) and set(config["stories260K"]) > {"recovery", "samples"}
    for given in FORMS.values():
        assert set(given) <= set(PLAIN)


@pytest.mark.parametrize("name", ["Wanda 50 %, LoRA", "Wanda 50 %, distilled", "magnitude 75 %, gradual"])
def test_forms_do_what_their_names_say(stories, name):
    config, params = smaller(stories, form(name) | ({"stages": 2} if "gradual" in name else {}), 0)
    assert sparsity(params) == pytest.approx(0.75 if "75" in name else 0.5, abs=0.02)
    assert config == stories.config
    before, after = tree.paths(stories.params), tree.paths(params)
    assert any(
        not np.array_equal(after[path], before[path]) for path in after if before[path].shape == after[path].shape
    )


def test_a_distilled_form_comes_nearer_to_the_whole_model_than_a_trained_one(stories):
    batch = stories.batches(1, 1)[0]

    def said(config, params):
        model = build(config, unroll=True)
        logits = jax.jit(lambda p, b: model.logits(p, model.apply(p, b).hidden))(params, batch)
        return np.asarray(jax.nn.log_softmax(logits), np.float64)[batch["loss_mask"] > 0]

    whole, apart = said(stories.config, stories.params), {}
    for recover in ("full", "distil"):
        config, params = smaller(stories, form("half the columns, trained") | {"recover": recover}, 0)
        assert config.d_ff == stories.config.d_ff // 2 and sparsity(params) == 0
        apart[recover] = float((np.exp(whole) * (whole - said(config, params))).sum(-1).mean())
    assert apart["distil"] < 0.95 * apart["full"]


def test_forms_that_differ_in_their_bits_alone_are_trained_once(stories, monkeypatch):
    trained = []
    monkeypatch.setattr(forms, "smaller", lambda _, given, seed: trained.append((given["recover"], seed)) or given)
    names = ("half the columns, trained", "half the columns, trained, int8", "half the columns, distilled")
    make = forms.shared(stories, [form(name) for name in names])
    for seed in (0, 1):
        first, second, other = (make(form(name), seed) for name in names)
        assert first is second and other is not first
    assert trained == [("full", 0), ("distil", 0), ("full", 1), ("distil", 1)]


def test_heads_and_columns_are_shares_of_the_model():
    config = tiny("llama", n_layers=1)[0].config
    assert kept(config, {"heads": 0.5, "columns": 0.5}) == {"heads": 2, "columns": 24}
    assert kept(config, {"heads": 0.01}) == {"heads": 2}, "one group of heads stays"
    assert kept(config, {"layers": (0,)}) == {"layers": (0,)}


def test_a_form_is_measured_and_written(stories, tmp_path):
    make, folder = forms.shared(stories, []), tmp_path / "stories"
    figures = compress.run_cell(stories, form("magnitude 2:4"), 0, make, False, folder / "masked")
    kernels = sum(w.size for k, w in tree.paths(stories.params).items() if "/layers/" in k and k.endswith("kernel"))
    assert figures["at_rest"] == figures["bytes"] - kernels // 2 * 4 + kernels // 8
    config, params, _ = load_pretrained(tmp_path / "stories" / "masked")
    assert config.d_ff == stories.config.d_ff and sparsity(params) == pytest.approx(0.5)
    assert "2:4" in (tmp_path / "stories" / "masked" / "README.md").read_text()
    compress.run_cell(stories, form("int8"), 0, make, False, folder / "int8")
    _, packed, _ = load_run(tmp_path / "stories" / "int8")
    assert tree.nbytes(packed) < tree.nbytes(stories.params) / 2
    assert (tmp_path / "stories" / "int8" / "README.md").is_file()


def test_the_frontier_has_what_nothing_beats():
    points = [("a", 1.0, 5.0), ("b", 2.0, 4.0), ("c", 2.0, 4.5), ("d", 3.0, 4.0), ("e", 4.0, 1.0)]
    groups = pareto(points)
    assert [name for name, *_ in groups["frontier"]] == ["a", "b", "e"]
    assert groups["the others"] == [("", 2.0, 4.5), ("", 3.0, 4.0)]
    assert list(pareto(points[:1])) == ["frontier"]


def row(name, size, loss, speed):
    facts = {"form": name, "seed": 0, "at_rest": size, "bytes": size, "weights": 9, "sparsity": 0.0, "loss": loss}
    return facts | {"loss/published stories": loss, "prefill": speed, "decode": speed}


def test_a_budget_buys_the_best_that_keeps_to_it(tmp_path):
    rows = [row("f32", 100, 1.0, 10), row("int8", 30, 1.1, 40), row("int4", 20, 2.0, 50)]
    said = lambda **budget: compress.recommended(rows, budget, "decode")  # noqa: E731
    assert "'f32'" in said() and "no budget" in said()
    assert "'int8'" in said(bytes=40) and "'int4'" in said(decode=45.0)
    assert "no form keeps to it; the smallest has 20 bytes" in said(bytes=10)
    console = Console(record=True, width=200, file=io.StringIO())
    compress.report("own", rows, ("loss", "loss/published stories"), ("prefill", "decode"), tmp_path, console)
    assert (tmp_path / "compress_own.png").is_file() and "int4" in console.export_text()


def test_unknown_subjects_and_missing_forms(tmp_path):
    config = get_config("tiny").to_dict() | {"data": str(tmp_path)}
    for change, words in (
        ({"subjects": ("stories",)}, "unknown subject 'stories'"),
        ({"forms": {"int8": form("int8")}}, "lack 'f32'"),
    ):
        with pytest.raises(ValueError, match=words):
            compress.work(config | change, tmp_path, Console(quiet=True))
