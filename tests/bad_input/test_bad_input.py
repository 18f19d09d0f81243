"""Bad input of every kind: one line that says what was given, what was expected, what there is, before work is lost."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from research.core import mesh
from research.data.build import DataConfig
from research.data.check_batch import check_batch
from research.data.corpus import TokenCorpus
from research.data.files import read_jsonl, read_text
from research.data.packing import Example, pack_row
from research.decoding import Sampling, generate
from research.models import build, preset
from research.training import log, optim, state
from research.training.checkpoint import Checkpoints
from research.training.fit import fit
from research.training.step import check_batch as check_step

ROOT = Path(__file__).resolve().parents[2]
TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=8)
ADAM = {"name": "adamw", "learning_rate": 1e-3, "schedule": "constant"}


def shapes(config):
    return build(config).abstract()


def batch(**changes):
    ones = np.ones((2, 4), np.int32)
    return {"tokens": ones, "targets": ones, "loss_mask": np.ones((2, 4), np.float32)} | changes


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def other_models_checkpoint(folder: Path):
    def run_state(config):
        params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes(config))
        return state.create(params, optim.make(ADAM, params), rng=jax.random.key(0))[0]

    with Checkpoints(folder) as checkpoints:
        checkpoints.save(run_state(TINY))
        checkpoints.wait()
        checkpoints.restore(run_state(TINY.replace(d_ff=64)))


def other_tokenizers_corpus(folder: Path):
    class Other:
        fingerprint = "b" * 64

    entry = '{"bytes": 0, "shards": []}'
    index = f'{{"version": 1, "tokenizer": {{"fingerprint": "{"a" * 64}"}}, "splits": {{"train": {entry}}}, '
    written(folder / "index.json", index + '"dtype": "uint16"}')
    TokenCorpus.open(folder, tokenizer=Other())


def prompt(*ids):
    return generate(build(TINY), shapes(TINY), [list(ids)], max_new_tokens=2)


CASES = {
    "model field with a typo": (lambda p: TINY.replace(n_layer=2), "'n_layer'.*did you mean 'n_layers'"),
    "impossible choice": (lambda p: TINY.replace(norm="batchnorm"), "'batchnorm'.*layernorm.*rmsnorm"),
    "unknown preset": (lambda p: preset("gpt-2"), "'gpt-2'.*did you mean 'gpt2'"),
    "unknown data option": (lambda p: DataConfig.of({"lenght": 8}), "'lenght'.*'length'"),
    "unknown objective": (lambda p: DataConfig.of({"objective": "clm"}), "'clm'.*'causal'"),
    "optimizer option with a typo": (
        lambda p: optim.make(ADAM | {"wieght_decay": 0.1}, shapes(TINY)),
        "'wieght_decay'.*did you mean 'weight_decay'",
    ),
    "optimizer pattern that matches nothing": (
        lambda p: optim.make(ADAM | {"rate_groups": (("encoder/.*", 0.1),)}, shapes(TINY)),
        "encoder/.*decoder/",
    ),
    "knob out of range": (lambda p: Sampling(top_p=1.5), r"top_p must lie in \(0, 1\], got 1.5"),
    "sequence longer than the model": (
        lambda p: check_batch(batch(tokens=np.ones((2, 9), np.int32)), TINY.vocab_size, TINY.max_length),
        "tokens are 9 long, the model takes at most 8",
    ),
    "document longer than a row": (lambda p: pack_row([Example(np.ones(9), np.ones(9))], 8), "9 tokens.*8"),
    "token id out of range": (
        lambda p: check_batch(batch(tokens=np.full((2, 4), 50)), TINY.vocab_size),
        r"tokens holds ids 50\.\.50, the model's vocabulary has 50 \(first at \[0, 0\]",
    ),
    "tokenizer larger than the model": (
        lambda p: check_batch(batch(tokens=np.full((2, 4), 99)), 50),
        "vocabulary has 50.*does the tokenizer belong",
    ),
    "prompt id out of range": (lambda p: prompt(50), "token id 50.*vocabulary of 50"),
    "prompt longer than the model": (lambda p: prompt(*range(9)), "9.* 8"),
    "empty prompt": (lambda p: prompt(), "empty|no token"),
    "empty text file": (lambda p: read_text(written(p / "a.txt", "\n")), "a.txt is empty"),
    "empty JSONL file": (lambda p: list(read_jsonl(written(p / "a.jsonl", ""))), "a.jsonl is empty"),
    "malformed JSONL line": (
        lambda p: list(read_jsonl(written(p / "a.jsonl", '{"text": "a"}\n{"text": \n'))),
        "a.jsonl, line 2: not JSON",
    ),
    "batch without a target": (lambda p: check_step(batch(loss_mask=np.zeros((2, 4)))), "masked.*zero everywhere"),
    "batch that does not split": (lambda p: check_step(batch(), 3), "2 rows.*3 micro-batches"),
    "checkpoint of another model": (other_models_checkpoint, r"another model.*|mlp/up/kernel"),
    "corpus of another tokenizer": (other_tokenizers_corpus, "another tokenizer.*aaaa.*bbbb"),
    "folder that cannot be written": (
        lambda p: log.check_writable(written(p / "file", "") / "inside"),
        "cannot write into.*file/inside.*Not a directory",
    ),
    "patience without evaluations": (
        lambda p: fit(None, None, None, None, steps=9, evaluate=dict, patience=3),
        "patience 3 counts evaluations.*evaluate_every is 0",
    ),
    "mesh larger than the machine": (lambda p: mesh.make_mesh({"data": 999}), "999.*8"),
    "unknown mesh axis": (lambda p: mesh.make_mesh({"model": 2}), "'model'.*'tensor'"),
    "mesh that does not divide a weight": (
        lambda p: mesh.specs(shapes(TINY.replace(d_ff=33)), mesh.RULES, mesh.make_mesh({"tensor": 2})),
        "mlp.*33.*not divisible.*'tensor' of size 2",
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case, tmp_path):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        call(tmp_path)
    # Lists of weights may follow on lines of their own; the first line says it all.
    assert len(str(caught.value).splitlines()[0]) > 20


COMMANDS = {
    "config entry with a typo": (["--config.pretrain.step=3"], "step"),
    "value of the wrong type": (["--config.pretrain.steps=many"], "many"),
    "config file that does not exist": (["--config=configs/nothing.py"], "configs/nothing.py"),
    "unknown argument of a config": (["--config=configs/lifecycle.py:huge"], "'huge'"),
    "workdir that cannot be written": (["--workdir=/dev/null/life"], "cannot write into the folder /dev/null/life"),
    "preset that does not exist": (["--config.model.preset=lama-7b"], "did you mean 'llama-7b'"),
    "forgotten dashes": (["config.seed=1"], "unexpected arguments"),
    "rollouts that make no minibatches": (["--config.ppo.schedule.minibatch=3"], "do not split into minibatches of 3"),
    "a third process for the stages": (["--config.processes=3"], "done by 1 or 2 processes, not by 3"),
    "answers without room": (["--config.pairs.new_tokens=128"], "of 224 tokens (pairs) do not fit"),
}


@pytest.mark.parametrize("case", COMMANDS, ids=lambda name: name.replace(" ", "-"))
def test_a_command_line_that_is_wrong_ends_at_once(case, tmp_path):
    arguments, said = COMMANDS[case]
    command = [sys.executable, "-m", "experiments.lifecycle", "--config=configs/lifecycle.py:tiny"]
    command += [f"--workdir={tmp_path}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode not in (0, 130)
    assert said in (result.stdout + result.stderr).replace("\n", " ")
    assert not list(tmp_path.iterdir()), "work was begun before the input was looked at"
