"""Bad input of pruning, cutting and the table of forms: one line that says what was given, before any work."""

import jax
import pytest
from rich.console import Console

from configs.compress import FORMS, PLAIN, get_config
from experiments import compress
from research import weights
from research.models import build, preset
from research.weights.slim import slim

SIZES = {"vocab_size": 30, "d_model": 12, "n_layers": 2, "n_heads": 2, "d_ff": 18, "max_length": 16}
MODEL = build(preset("gpt2").replace(**SIZES))


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def masked(params, method="magnitude", **options):
    weights.attach(params, {"method": method, **options}, jax.random.key(0))


def form(tmp_path, **options):
    forms = {"f32": PLAIN, "mine": PLAIN | options}
    compress.work(get_config("tiny").to_dict() | {"forms": forms, "data": str(tmp_path)}, tmp_path, Console(quiet=True))


OF_WEIGHTS = {
    "sparsity of 1": (lambda p: masked(p, sparsity=1.0), r"sparsity is a share in \[0, 1\); given 1.0"),
    "sparsity below 0": (lambda p: masked(p, "wanda", sparsity=-0.5), r"a share in \[0, 1\); given -0.5"),
    "sparsity in percent": (lambda p: masked(p, "sparsegpt", sparsity=50), r"a share in \[0, 1\); given 50"),
    "N:M that does not divide": (
        lambda p: masked(p, pattern="4:8"),
        "pattern '4:8' does not divide the 12 inputs of 'decoder/layers/00/attention/k/kernel'",
    ),
    "N of M above M": (
        lambda p: masked(p, pattern="4:2"),
        "a pattern is N:M with 0 < N < M, such as '2:4'; given '4:2'",
    ),
    "calibrated without text": (
        lambda p: weights.quantize(p, {"method": "wanda"}),
        "method 'wanda' is calibrated on text: give `run` and `batches`",
    ),
    "every head": (lambda p: slim(MODEL.config, p, heads=0), "heads is how many of 2 stay, .*; given 0"),
    "every column": (lambda p: slim(MODEL.config, p, columns=0), "columns is how many of 18 stay; given 0"),
    "every layer": (lambda p: slim(MODEL.config, p, layers=(0, -1)), "all 2 layers of the decoder would go"),
}
OF_FORMS = {
    "share of no head": (
        {"slim": {"heads": 0.0}},
        r"'mine': slim.heads is the share that stays, in \(0, 1\]; given 0.0",
    ),
    "columns in percent": ({"slim": {"columns": 50}}, r"slim.columns is the share that stays, in \(0, 1\]; given 50"),
    "part by another name": ({"slim": {"colums": 0.5}}, "unknown option 'colums', did you mean 'columns'"),
    "option by another name": ({"recovr": "full"}, "'mine': unknown option 'recovr', did you mean 'recover'"),
    "recovery by another name": ({"recover": "distill"}, "'mine': unknown recover 'distill', did you mean 'distil'"),
    "rule by another name": ({"prune": {"method": "wnda"}}, "unknown PEFT method 'wnda', did you mean 'wanda'"),
    "sparsity of a form": ({"prune": {"method": "wanda", "sparsity": 1.5}}, r"a share in \[0, 1\); given 1.5"),
}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_weights_are_refused_in_one_line(params, name):
    run, message = OF_WEIGHTS[name]
    with pytest.raises(ValueError, match=message) as error:
        run(params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", OF_FORMS)
def test_forms_are_refused_in_one_line_before_anything_is_made(tmp_path, name):
    options, message = OF_FORMS[name]
    with pytest.raises(ValueError, match=message) as error:
        form(tmp_path, **options)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_the_forms_of_the_config_are_taken():
    for name, given in FORMS.items():
        compress.check_form(name, PLAIN | given)
