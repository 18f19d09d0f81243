"""tools/profile_step.py: nothing is counted twice, instructions find their kind and their part, and it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.profile_step import kind_of, own_times, part_of, read_program

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
%fused_dot (p: f32[2,2]) -> f32[2,2] {
  %p = f32[2,2]{1,0} parameter(0)
  ROOT %dot.1 = f32[2,2]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%region_0 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %add.9 = f32[] add(%a, %b)
}

ENTRY %main.5 (x: f32[2,2]) -> f32[] {
  %x = f32[2,2]{1,0} parameter(0)
  %dot_fusion = f32[2,2]{1,0} fusion(%x), kind=kOutput, calls=%fused_dot, metadata={op_name="jit(update)/mlp/dot"}
  %gemm.2 = f32[2,2]{1,0} custom-call(%x), custom_call_target="__cublas$gemm"
  %all-reduce-start.1 = f32[2,2]{1,0} all-reduce-start(%x), to_apply=%region_0
  %copy.3 = f32[2,2]{0,1} copy(%x)
  ROOT %reduce.4 = f32[] reduce(%x, %c), dimensions={0,1}, to_apply=%region_0, metadata={op_name="jit(update)/sum"}
}
"""


def test_nested_events_count_once():
    events = [("while", 0.0, 100.0), ("dot", 10.0, 30.0), ("add", 20.0, 5.0), ("dot", 50.0, 20.0), ("copy", 100.0, 7.0)]
    assert own_times(events) == {"while": 50.0, "dot": 45.0, "add": 5.0, "copy": 7.0}
    assert sum(own_times(events).values()) == 107.0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dot_fusion", "matrix products"),
        ("gemm.2", "matrix products"),
        ("all-reduce-start.1", "communication"),
        ("copy.3", "copies and conversions"),
        ("reduce.4", "reductions"),
        ("add.9", "elementwise"),
    ],
)
def test_an_instruction_is_what_it_holds(name, kind):
    by_name, computations = read_program(PROGRAM)
    assert kind_of(by_name[name], computations) == kind


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ("jit(update)/jvp(Transformer)/decoder/while/body/Block/attention/q/dot_general", "attention, forward"),
        ("jit(update)/transpose(jvp(Transformer))/Block/mlp/up/dot_general", "feed-forward, backward"),
        ("jit(update)/jvp()/while/body/closed_call/dot_general", "loss and output layer, forward"),
        ("jit(update)/sqrt", "optimizer and rest"),
        ("", "optimizer and rest"),
    ],
)
def test_an_instruction_knows_its_part(origin, part):
    assert part_of(origin) == part


@pytest.mark.slow
def test_profiles_a_config_from_the_shell(tmp_path):
    command = [sys.executable, "tools/profile_step.py", "--config=configs/forkme.py:tiny", f"--workdir={tmp_path}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [*command, "--steps=2"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=300
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["step_ms"] > 0
    assert last["kinds"]["matrix products"] > 0
    assert {"attention, forward", "feed-forward, backward", "optimizer and rest"} <= set(last["parts"])
    assert sum(last["kinds"].values()) == pytest.approx(last["busy_ms"], rel=0.01)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert len(json.loads((tmp_path / "profile.json").read_text())["top"]) == 15
