"""What is seen of a program's numbers, against the same program computed by JAX and against plain numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ranges
from experiments.precision import gradient
from experiments.ranges import Seen, Site, backward_shares, overflow, peaks, watch
from research.models import build
from tests.models.conftest import tiny, tiny_config


def batch_for(config):
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, config.vocab_size, (2, 8)), jnp.int32)
    return {"tokens": tokens, "targets": jnp.roll(tokens, -1, 1), "loss_mask": jnp.ones((2, 8))}


def test_numbers_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(50,)).astype(np.float32)
    x[:5] = [0.0, 1e-9, -3e-8, 300.0, -1000.0]

    def program(x):
        return jnp.square(x), x.astype(jnp.float16)

    seen = {site.operation: numbers for site, numbers in watch(program, jnp.asarray(x)).items()}
    with np.errstate(under="ignore"):
        half = x.astype(np.float16)
    assert seen["square"] == Seen(1e6, 50.0, 0.0, 0.0)
    assert seen["convert_element_type"] == Seen(1000.0, 50.0, float(((half == 0) & (x != 0)).sum()), 0.0)
    assert seen["convert_element_type"].lost == 1  # 3e-8 is rounded up to the smallest float16
    narrow = {site.operation: n for site, n in watch(program, jnp.asarray(x), round_to="float16").items()}
    # 300² is too much, as is 1000²; what is squared to less than half of 2^-24 is lost.
    squares = np.square(x.astype(np.float64))
    assert narrow["square"].infinite == 2 == (squares > 65520).sum()
    assert narrow["square"].lost == ((squares < 2.0**-25) & (np.square(x) != 0)).sum()
    assert narrow["square"].peak < 65504


def test_the_walk_computes_the_program():
    model, params = tiny("llama", n_layers=2)
    program, args = gradient(model), (params, batch_for(model.config), jnp.float32(8))
    closed = jax.make_jaxpr(program)(*args)
    walk = ranges._Walk(None)
    got = walk.through(closed.jaxpr, closed.consts, jax.tree.leaves(args), "", -1)
    chex.assert_trees_all_close(got, jax.tree.leaves(program(*args)), rtol=1e-4, atol=1e-5)
    # The residual stream of a layer reaches at least what the next one is given.
    seen = watch(program, *args)
    states = model.apply(params, args[1], hidden_states=True).hidden_states
    largest = peaks(seen, backward=False)["decoder", "residual"]
    assert list(largest) == [0, 1] and largest[0] >= float(jnp.abs(states[1]).max()) * (1 - 1e-6)
    assert {stack for stack, _ in peaks(seen, backward=True)} == {"decoder"}


def test_a_large_residual_overflows_the_norm_in_float16_alone():
    config = tiny_config("llama", n_layers=1)
    params = jax.jit(build(config).init)(jax.random.key(0))
    params["embed"]["tokens"]["embedding"] *= 2e4  # numbers of about 400
    args = (params, batch_for(config), jnp.float32(1))
    site = overflow(watch(gradient(build(config)), *args, round_to="float16"))
    assert (site.backward, site.stack, site.layer, site.module) == (False, "decoder", 0, "attention_norm")
    assert site.operation in ("square", "reduce_sum")
    assert overflow(watch(gradient(build(config)), *args, round_to="bfloat16")) is None
    # The policy keeps norms in float32: float16 products of the same weights make nothing infinite.
    assert overflow(watch(gradient(build(config, policy="f16")), *args)) is None


def test_a_scale_saves_small_gradients_and_a_larger_one_makes_them_infinite():
    config = tiny_config("llama", n_layers=1)
    model = build(config, policy="f16")
    params, batch = jax.jit(model.init)(jax.random.key(0)), batch_for(config)
    shares = [
        backward_shares(watch(gradient(model), params, batch, jnp.float32(scale)), "float16")
        for scale in (2.0**-10, 2.0**10, 2.0**30)
    ]
    (low, none), (middle, still), (_, bad) = shares
    assert low > middle >= 0 and none == still == 0 and bad > 0.1
    exact = watch(gradient(build(config)), params, batch, jnp.float32(1))
    with pytest.raises(ValueError, match="rounds nothing to float16"):
        backward_shares(exact, "float16")


def test_names_say_where():
    path = "transpose(jvp(Transformer))/Transformer._run/decoder/decoder._scan/Block/attention/attention.keys_values/k"
    assert ranges.site_of(path, 2, "mul", "float16") == Site(True, "decoder", 2, "attention/k", "mul", "float16")
    path = "jvp(Transformer)/Transformer._run/encoder/final_norm"
    assert ranges.site_of(path, -1, "square", "float32") == Site(
        False, "encoder", -1, "final_norm", "square", "float32"
    )
    assert ranges.site_of("jvp()", -1, "exp", "float32").module == "embedding and loss"
