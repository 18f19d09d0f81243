"""Collectives read from compiled programs whose communication is known, and dry runs beside what theory says."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from research.models import preset
from research.scaling import flops
from research.scaling.collectives import collectives
from research.scaling.dry_run import DryRun, dry_run, step_time
from research.scaling.memory import Setting
from tools import dry_run as tool

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
TINY = preset("llama-7b").replace(
    vocab_size=64, d_model=32, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=8, d_ff=48, max_length=16
)


def found(program, spec_in, spec_out):
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    inside = jax.shard_map(program, mesh=mesh, in_specs=spec_in, out_specs=spec_out, check_vma=False)
    text = jax.jit(inside).lower(jax.ShapeDtypeStruct((8, 16), jnp.float32)).compile().as_text()
    return collectives(text, 8)


def test_an_all_reduce_of_a_group_in_a_loop():
    """Four devices, five turns, a block of 8 x 4 float32 on each: 2 · 3/4 · 128 bytes a turn."""

    def program(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jax.lax.psum(y, "tensor") / 4, x)

    spec = PartitionSpec(None, "tensor")
    (one,) = found(program, spec, spec)
    assert (one.kind, one.size, one.group, one.times) == ("all-reduce", 128, 4, 5)
    assert one.moved == pytest.approx(5 * 2 * 0.75 * 128)


def test_an_all_gather_and_a_permutation():
    spec = PartitionSpec("data")
    (one,) = found(lambda x: jax.lax.all_gather(x, "data", tiled=True), spec, PartitionSpec())
    assert (one.kind, one.size, one.group) == ("all-gather", 8 * 16 * 4, 2) and one.moved == 256
    (one,) = found(lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), spec, spec)
    assert one.kind == "collective-permute" and one.moved == 4 * 16 * 4
    with pytest.raises(ValueError, match="has no ENTRY computation"):
        collectives("nothing", 8)


@pytest.mark.parametrize("axes", [{"data": 8}, {"fsdp": 8}], ids=str)
def test_a_step_sends_what_theory_says(axes):
    run = dry_run(Setting(TINY, 8, 16, mesh=axes, remat="none", policy="f32", chunk=16))
    weights = 4 * sum(w.size for w in jax.tree.leaves(Setting(TINY, 8, 16).shapes))
    assert run.devices == 8 and run.flops == pytest.approx(flops.training(TINY, 16, seen=True))
    gradients = 2 * 7 / 8 * weights
    if "data" in axes:  # gradients once, and a few scalars
        assert set(run.sent) == {"all-reduce"}
        assert gradients <= run.sent["all-reduce"] <= 1.01 * gradients
    else:  # weights for the forward and the backward pass, and the gradients
        assert 7 / 8 * weights <= run.sent["all-gather"] <= 2.2 * 7 / 8 * weights
        assert run.sent["all-reduce"] <= 1.1 * gradients
        assert run.kept < 1.2 * 3 * weights / 8  # weights and two moments, cut


def test_the_time_of_a_step():
    run = DryRun(8, 0, 0, 2e12, {"all-gather": 3e9, "all-reduce": 1e9}, {}, 0.0)
    took = step_time(run, 1e12, 1e9)
    assert (took.computing, took.sending, took.apart, took.overlapped) == (2.0, 4.0, 6.0, 4.0)
    with pytest.raises(ValueError, match="bytes_per_second is above 0; given 0"):
        step_time(run, 1e12, 0)
    with pytest.raises(ValueError, match="needs 16 devices"):
        dry_run(Setting(TINY, 16, 16, mesh={"data": 16}))


def test_the_tool_prints_a_device_and_refuses_what_is_no_mesh(monkeypatch, capsys):
    model = "vocab_size=64,d_model=32,n_layers=3,n_heads=4,d_ff=48,max_length=16,norm=rmsnorm"
    monkeypatch.setattr("sys.argv", ["dry_run.py", model, "--mesh=data=8", "--batch=8", "--sequence=16"])
    result = tool.report(tool.arguments())
    printed = capsys.readouterr().out
    assert result["devices"] == 8 and "all-reduce" in printed and "sending at 50 GB/s" in printed
    assert result["sending"] == pytest.approx(sum(result["sent"].values()) / 50e9)
    monkeypatch.setattr("sys.argv", ["dry_run.py", model, "--mesh=8", "--batch=8"])
    with pytest.raises(SystemExit):
        tool.main()
    assert capsys.readouterr().err == "error: expected a mesh such as fsdp=8,tensor=2; given '8'\n"
