"""tools/memory.py from the shell: the account, the what-if table, the largest batch, the figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from research.models import preset
from research.scaling import memory
from tools.memory import model_of, pairs, recipe_of

ROOT = Path(__file__).resolve().parents[2]
PLAIN = "vocab_size=512,d_model=64,n_layers=2,n_heads=4,d_ff=128,max_length=64"


def shell(*arguments: str, code: int = 0) -> str:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "COLUMNS": "120"}
    command = [sys.executable, "tools/memory.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_account_table_largest_batch_and_figure(tmp_path):
    figure = tmp_path / "memory.png"
    printed = shell(PLAIN, "--method=lora", "--rank=4", "--batch=4", "--card=h100", f"--plot={figure}")
    last = json.loads(printed.splitlines()[-1])
    recipe = {"method": "lora", "rank": 4}
    given = memory.Setting(model_of(PLAIN), 4, 64, recipe=recipe, policy="bf16")
    told = memory.training(given, cpu=False)
    assert {name: last[name] for name in told._fields} == told._asdict() and last["total"] == told.total
    assert memory.training(given.change(rows=last["largest_batch"]), cpu=False).total <= 60e9
    for line in ("weights", "optimizer", "What if", "nf4 + lora", "largest batch on h100 (60.00 GB to use)"):
        assert line in printed
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_generation_and_a_refusal():
    last = json.loads(shell(PLAIN, "--decode", "--batch=2", "--no-what-if").splitlines()[-1])
    assert last["cache"] > 2 * 64 * 2 * 2 * 64 * 2 and last["optimizer"] == 0
    assert shell(PLAIN, "--card=h101", code=2).startswith("error: unknown card 'h101', did you mean 'h100'?")


def test_what_the_arguments_stand_for(tmp_path):
    assert model_of("gpt2") == preset("gpt2")
    assert pairs("a=1,b=true,c=x") == {"a": 1, "b": True, "c": "x"}
    assert recipe_of("nf4+lora", 4) == [{"method": "nf4"}, {"method": "lora", "rank": 4}]
    assert recipe_of("full", 4) == []
    from research.interop import config_to_hf

    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(preset("llama3.2-1b"))))
    assert model_of(str(tmp_path)).n_layers == 16
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        (tmp_path / "empty").mkdir()
        model_of(str(tmp_path / "empty"))
