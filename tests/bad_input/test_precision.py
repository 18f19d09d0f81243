"""Bad input of precision: policies and loss scales that make no sense, refused in one clear line."""

import jax.numpy as jnp
import pytest

from research.core.dtypes import Policy
from research.models import build, preset
from research.recipes.assemble import complete
from research.training import loss_scale

TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=8)


def scale(policy="f16", **settings):
    model = build(TINY, policy=policy)
    return loss_scale.make(settings, model.policy, model.abstract())


CASES = {
    "unknown policy": (lambda: Policy.parse("fp16"), r"unknown precision policy 'fp16'; have \['bf16', 'f16', 'f32'"),
    "unknown type": (lambda: Policy.parse("compute=f8"), r"unknown precision 'f8'; have \['bf16', 'bfloat16', 'f16'"),
    "field without a value": (lambda: Policy.parse("compute=f16,storage"), "unknown precision ''; have"),
    "unknown key": (lambda: scale(intial=2.0), "unknown key loss_scale.intial, did you mean 'initial'"),
    "unknown section": (lambda: complete({"loss_scaling": {}}), "loss_scaling, did you mean 'loss_scale'"),
    "floor above the first scale": (
        lambda: scale(initial=1024.0, floor=2048.0),
        "needs 0 < floor <= initial; given floor 2048.0 and initial 1024.0",
    ),
    "scale zero": (lambda: scale(initial=0.0), "given floor 1.0 and initial 0.0"),
    "scale infinite": (lambda: scale(initial=float("inf")), "given floor 1.0 and initial inf"),
    "scale not a number": (lambda: scale(initial=float("nan")), "given floor 1.0 and initial nan"),
    "negative interval": (lambda: scale(growth_interval=-1), "number of steps, or 0 for a fixed scale; given -1"),
    "half a step": (lambda: scale(growth_interval=0.5), "number of steps, or 0 for a fixed scale; given 0.5"),
    "scale in bfloat16": (
        lambda: scale("bf16", initial=1024.0),
        "{'initial': 1024.0} does nothing where products are in bfloat16.*take the policy 'f16'",
    ),
    "scale in float32": (lambda: scale("f32", growth_interval=0), "does nothing where products are in float32"),
    "weights in float16": (
        lambda: scale("pure_f16"),
        "stored in float16 and cannot be trained.*take the policy 'f16'",
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_mistake_is_taken():
    assert scale("f32") is None and scale("bf16", **loss_scale.DEFAULTS) is None
    assert scale("f16").scale == 65536.0 and scale("f16", growth_interval=0).growth_interval == 0
    # Adapters beside a float16 base are float32, and learn.
    assert loss_scale.make({}, Policy.parse("pure_f16"), {"a": jnp.zeros(2)}) is not None
