"""experiments/train.py from end to end, for every kind of model, and its refusals."""

import json

import numpy as np
import pytest
from rich.console import Console

from configs import forkme
from experiments.train import run
from research.core import tree
from research.interop.run import load_run
from research.recipes.assemble import complete


def config(text, **changes):
    made = forkme.get_config("tiny").to_dict()
    made["data"] |= {"kind": "text", "path": str(text), "heldout": 0.2}
    made["mesh"] = {}
    for name, value in changes.items():
        made[name] = made[name] | value if isinstance(value, dict) else value
    return complete(made)


TRAINED = {"kind": "bpe", "path": "", "vocab_size": 300}
FAMILIES = {
    "decoder": {},
    "prefix": {"data": {"objective": "prefix"}},
    "encoder": {
        "model": {"preset": "bert-base", "head_dim": 8, "tied": True, "norm_position": "pre", "final_norm": True},
        "data": {"objective": "mlm"},
        "tokenizer": TRAINED,
    },
    "encoder_decoder": {
        "model": {"preset": "t5-small", "head_dim": 8, "logit_scale": 0.25},
        "data": {"objective": "span"},
        "tokenizer": TRAINED | {"sentinels": 10},
    },
}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_kind_of_model_trains_and_is_read_back(tmp_path, text, name):
    given = config(text, **FAMILIES[name], steps=6, trainable=())
    result = run(given, tmp_path, Console(quiet=True))
    assert result.stopped == "finished" and int(result.state.step) == 6 and np.isfinite(result.best)
    described, params, meta = load_run(tmp_path / "checkpoints")
    assert meta["step"] == 6 and described.kind == meta["config"]["model"]["kind"]
    for path, weight in tree.paths(params).items():
        np.testing.assert_array_equal(weight, tree.paths(result.state.params)[path])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_tuning_starts_from_a_run_and_moves_only_what_was_chosen(tmp_path, text):
    run(config(text, steps=2), tmp_path / "base", Console(quiet=True))
    before = tree.paths(load_run(tmp_path / "base" / "checkpoints")[1])
    examples = [{"prompt": f"What is {i}?", "completion": f" A {i}."} for i in range(40)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(e) + "\n" for e in examples))
    given = config(text, steps=2, init_from=str(tmp_path / "base" / "checkpoints"), trainable=(".*/mlp/.*",))
    given["model"] = {"policy": "f32"}
    given["data"] |= {"kind": "examples", "objective": "tune", "path": str(tmp_path / "examples.jsonl")}
    run(given, tmp_path / "tuned", Console(quiet=True))
    after = tree.paths(load_run(tmp_path / "tuned" / "checkpoints")[1])
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved and all("/mlp/" in path for path in moved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stpes": 3}, "unknown key config.stpes, did you mean 'steps'"),
        ({"model": {"n_layer": 2}}, "unknown model field 'n_layer', did you mean 'n_layers'"),
        ({"model": {"preset": "llama7b"}}, "unknown preset 'llama7b', did you mean 'llama-7b'"),
        ({"model": {"vocab_size": 100}}, "the tokenizer has 259 ids, the model's vocabulary 100"),
        ({"data": {"length": 64}}, "data.length 64 is longer than the model's max_length 32"),
        ({"data": {"objective": "mlm"}}, "objective 'mlm' needs a model of kind 'encoder'; 'llama' is of kind"),
        ({"data": {"objectives": "mlm"}}, r"unknown data options \['objectives'\]"),
        ({"optimizer": {"name": "adam2"}}, "unknown optimizer 'adam2'; have"),
        ({"trainable": (".*/lora",)}, "pattern '.*/lora' matches no weight"),
        ({"mesh": {"data": 3}}, "axis 0 of batch|devices"),
        ({"accumulate": 3}, "4 rows, which do not split into 3 micro-batches"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_work_begins(tmp_path, text, changes, message):
    with pytest.raises(ValueError, match=message):
        run(config(text, **changes), tmp_path, Console(quiet=True))
