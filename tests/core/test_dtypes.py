"""Precision policies are parsed, and a wrong name is refused."""

import jax.numpy as jnp
import pytest

from research.core.dtypes import Policy, dtype


def test_presets_and_fields():
    assert Policy.parse("bf16") == Policy(jnp.dtype("float32"), jnp.dtype("bfloat16"), jnp.dtype("float32"))
    assert Policy.parse("pure_bf16").storage == jnp.bfloat16
    assert Policy.parse("compute=f16").compute == jnp.float16
    assert Policy.parse("storage=bf16,compute=bf16,output=bf16").output == jnp.bfloat16


@pytest.mark.parametrize("text", ["f23", "compute=f23", "storge=f32"])
def test_unknown_names_are_refused_with_what_exists(text):
    with pytest.raises(ValueError, match="have"):
        Policy.parse(text)
    with pytest.raises(ValueError, match="bf16"):
        dtype("f23")
