"""Bad input of quantization: what cannot be packed, calibrated or loaded; the same kind of table."""

import jax
import jax.numpy as jnp
import pytest

from research import weights
from research.decoding import generate
from research.interop.run import save_run
from research.models import build, preset
from research.recipes.assemble import check_learns
from research.training.checkpoint import load_params

TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)
MODEL = build(TINY)
BERT = preset("bert-base").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)
UP = "decoder/layers/00/mlp/up/kernel"


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def packed(params, **recipe):
    return weights.quantize(params, recipe, config=TINY)


def run(params, batch):
    return MODEL.apply(params, batch).hidden


def calibrated(params, config=TINY, **recipe):
    batch = {"tokens": jnp.ones((1, 4), jnp.int32)}
    return weights.quantize(params, recipe, run=run, batches=[batch], config=config)


def with_up(params, change):
    return weights.targets.replaced(params, {UP: change(params["decoder"]["layers"]["00"]["mlp"]["up"]["kernel"])})


def read_as(params, folder, made, asked):
    """Weights of one form, stored, and read as another."""
    form = packed(params, **made) if made else params
    save_run(folder, TINY, form, made or ())
    weights.restored(load_params(folder)[0], MODEL.abstract(), asked or (), config=TINY)


CASES = {
    "odd block": (lambda w, p: packed(w, method="nf4", block=7), "block of a 4-bit format.*even.*given 7"),
    "odd group": (lambda w, p: packed(w, method="int4", group=9), "a group is an even number.*given 9"),
    "five bits": (lambda w, p: calibrated(w, method="gptq", bits=5), "2, 3 or 4 bits; given 5"),
    "bits against the name": (lambda w, p: packed(w, method="int3", bits=4), "'int3' has no option 'bits'"),
    "no rows": (
        lambda w, p: packed(with_up(w, lambda u: u[..., :0]), method="int8"),
        f"'{UP}' of shape .*0.* is empty",
    ),
    "NaN weight": (
        lambda w, p: packed(with_up(w, lambda u: u.at[0, 0, 0].set(jnp.nan)), method="int8"),
        f"'{UP}' holds 1 numbers that are NaN or infinite",
    ),
    "infinite weight": (
        lambda w, p: packed(with_up(w, lambda u: u.at[0, :, 0].set(jnp.inf)), method="nf4"),
        f"'{UP}' holds 16 numbers that are NaN or infinite",
    ),
    "vector": (lambda w, p: packed(w, method="int8", target=".*norm/scale"), "matrices are quantized; .*shape .16,."),
    "pattern that matches nothing": (lambda w, p: packed(w, method="nf4", target=".*/kernels"), "kernels.* matches no"),
    "no calibration": (lambda w, p: packed(w, method="gptq"), "'gptq' is calibrated on text: give `run`"),
    "attached without statistics": (
        lambda w, p: weights.attach(w, {"method": "int8_static"}, jax.random.key(0)),
        "needs statistics of its inputs",
    ),
    "empty calibration set": (
        lambda w, p: weights.quantize(w, {"method": "gptq"}, run=run, batches=[]),
        "the calibration set is empty",
    ),
    "calibration that misses a weight": (
        lambda w, p: calibrated(w, method="gptq", target=["embed/tokens/embedding", ".*/up/kernel"]),
        "calibration run does not use 'embed/tokens/embedding'",
    ),
    "unknown range": (lambda w, p: calibrated(w, method="int8_static", range="mss"), "'mss', did you mean 'mse'"),
    "percentile": (lambda w, p: calibrated(w, method="int8_static", percentile=101.0), "percentile lies in 0..100"),
    "no damping": (lambda w, p: calibrated(w, method="gptq", damping=0.0), "damping is a positive share"),
    "alpha": (lambda w, p: calibrated(w, method="smoothquant", alpha=1.5), "alpha lies in 0..1; given 1.5"),
    "smooth without config": (lambda w, p: calibrated(w, config=None, method="awq"), "needs the model's config"),
    "nowhere to move numbers": (
        lambda w, p: calibrated(w, config=BERT, method="smoothquant", target=".*/q/kernel"),
        "none of .*attention/q/kernel.* reads features that can be scaled.*'post'",
    ),
    "quantized under an adapter": (
        lambda w, p: packed(weights.attach(w, {"method": "lora"}, jax.random.key(0)), method="nf4"),
        "carries an adapter .'default'.: quantize the base first",
    ),
    "integers that learn by rounding": (
        lambda w, p: weights.attach(w, [{"method": "nf4"}, {"method": "qat"}], jax.random.key(0)),
        "is quantized already: its integers cannot learn",
    ),
    "quantized loaded as dense": (
        lambda w, p: read_as(w, p, {"method": "nf4"}, None),
        "attention/k/kernel' is stored as .*'absmax', 'codes'.* asked for as a plain array.* load it with the recipe",
    ),
    "dense loaded as quantized": (
        lambda w, p: read_as(w, p, None, {"method": "int8"}),
        "attention/k/kernel' is stored as a plain array, asked for as .'q', 'scale'.* load it with the recipe",
    ),
    "one form loaded as another": (
        lambda w, p: read_as(w, p, {"method": "int8"}, {"method": "nf4"}),
        "is stored as .'q', 'scale'., asked for as .'absmax', 'codes'",
    ),
    "stored without its recipe": (
        lambda w, p: save_run(p, TINY, packed(w, method="nf4")),
        r"the weights hold \['NF4'\] and the recipe \[\] makes plain arrays of this model",
    ),
    "stored with other options": (
        lambda w, p: save_run(p, TINY, packed(w, method="nf4", block=8), {"method": "nf4"}),
        r"hold \['NF4'\] and the recipe \['nf4'\] makes \['NF4'\].*all its options",
    ),
    "training integers": (
        lambda w, p: check_learns(packed(w, method="int8")),
        "'decoder/layers/00/attention/k/kernel/q' is quantized and cannot learn.*lora",
    ),
    "nothing to count": (lambda w, p: weights.bits_per_weight(w), "holds no quantized weight"),
    "another base to merge into": (
        lambda w, p: weights.merge_back(packed(w, method="nf4"), run, {}, base={}),
        "the base has no weight .* to merge into",
    ),
    "cache in four bits": (
        lambda w, p: generate(MODEL, w, [[4]], cache_dtype="int4"),
        "unknown cache_dtype 'int4'; have \\['', 'int8'\\]",
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case, params, tmp_path):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        call(params, tmp_path)
    assert len(str(caught.value).splitlines()[0]) > 20
