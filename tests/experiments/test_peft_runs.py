"""PEFT from a line of config: train, stop, go on, load, generate."""

import json

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import train
from research import weights
from research.core import tree
from research.decoding import generate
from research.interop.run import load_run, save_run
from research.models import build
from research.recipes.assemble import assemble, complete
from research.training.checkpoint import load_params
from tests.models.conftest import tiny_config

RECIPES = {
    "lora": [{"method": "lora", "rank": 2, "rate_ratio": 4.0}],
    "prompt": [{"method": "prompt", "length": 3, "init": "text", "text": "a story"}],
    "prefix": [{"method": "prefix", "length": 2}],
    "last_layers": [{"method": "last_layers"}],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small decoder over bytes and a few examples."""
    folder = tmp_path_factory.mktemp("base")
    model = build(tiny_config("llama", vocab_size=264, max_length=64))
    save_run(folder / "run", model.config, jax.jit(model.init)(jax.random.key(0)))
    lines = [{"prompt": f"count {i}", "completion": f" {i + 1}"} for i in range(30)]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def config_of(base, recipe, **changes):
    data = {"kind": "examples", "path": str(base / "examples.jsonl"), "objective": "tune", "length": 48}
    return complete(
        {
            "steps": 3,
            "init_from": str(base / "run"),
            "peft": recipe,
            "tokenizer": {"path": "bytes"},
            "data": data | {"batch_size": 2, "heldout": 0.2},
            "optimizer": {"learning_rate": 0.05, "schedule": "constant"},
            "evaluate_batches": 1,
            "cache": "",  # a second run in one process that read programs back from the cache crashed once (LOG.md)
        }
        | changes
    )


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_a_run_trains_saves_and_speaks(base, tmp_path, method):
    quiet = Console(quiet=True)
    result = train.run(config_of(base, RECIPES[method]), tmp_path / "a", quiet)
    whole = tree.merge(result.state.params, result.frozen)
    config, params, meta = load_run(tmp_path / "a" / "checkpoints")
    assert meta["config"]["peft"][0]["method"] == method
    for path, leaf in tree.paths(whole).items():
        np.testing.assert_array_equal(leaf, tree.paths(params)[path], err_msg=path)
    before, _ = load_params(base / "run")
    if method == "lora":
        assert all("kernel/" in path for path in tree.paths(result.state.params))
        np.testing.assert_array_equal(params["embed"]["tokens"]["embedding"], before["embed"]["tokens"]["embedding"])
    text = generate(build(config), params, [[5, 6, 7]], max_new_tokens=4)
    assert len(text.ids(0)) == 4
    # Stopped after one step and started again, it ends with the same numbers.
    train.run(config_of(base, RECIPES[method], steps=3, save_every=1), tmp_path / "b", quiet)
    again = load_run(tmp_path / "b" / "checkpoints")[1]
    for path, leaf in tree.paths(again).items():
        np.testing.assert_array_equal(leaf, tree.paths(params)[path], err_msg=path)


def test_lora_on_a_quantized_run_keeps_its_integers_and_their_recipe(base, tmp_path):
    """QLoRA from a stored base, with embeddings in int8; trained further, and read, without saying so again."""
    described, dense, _ = load_run(base / "run")
    recipe = [{"method": "int8", "target": "embed/tokens/embedding"}, {"method": "nf4", "block": 16}]
    packed = weights.quantize(dense, recipe)
    save_run(tmp_path / "base", described, packed, recipe)
    settings = config_of(base, RECIPES["lora"], init_from=str(tmp_path / "base"))
    result = train.run(settings, tmp_path / "a", Console(quiet=True))
    assert all(path.endswith(("kernel/a", "kernel/b")) for path in tree.paths(result.state.params))
    _, params, meta = load_run(tmp_path / "a" / "checkpoints")
    assert [rule["method"] for rule in meta["config"]["peft"]] == ["int8", "nf4", "lora"]
    chex.assert_trees_all_equal(params, tree.merge(result.state.params, result.frozen))
    chex.assert_trees_all_equal(weights.strip(params), packed)
    again = config_of(base, (), init_from=str(tmp_path / "a" / "checkpoints"), trainable=(".*/b",))
    assert assemble(again, tmp_path / "b").recipe == meta["config"]["peft"]
    with pytest.raises(ValueError, match="'decoder/layers/00/attention/k/kernel/absmax' is quantized and cannot"):
        assemble(config_of(base, (), init_from=str(tmp_path / "base")), tmp_path / "c")


def test_the_virtual_ids_stand_in_front_of_every_packed_example(base, tmp_path):
    parts = assemble(config_of(base, RECIPES["prompt"]), tmp_path)
    batch = parts.source.batch(0)
    for row in range(2):
        segments, tokens = batch["segment_ids"][row], batch["tokens"][row]
        for segment in range(1, segments.max() + 1):
            assert tokens[segments == segment][:3].tolist() == [264, 265, 266]
        assert not batch["loss_mask"][row][:2].any()
    assert parts.state.params["embed"]["tokens"]["embedding"].prompt.shape == (3, 32)


def test_a_soft_prompt_stands_in_front_of_what_the_encoder_reads(base, tmp_path):
    model = build(tiny_config("t5", vocab_size=264, max_length=64))
    save_run(base / "t5", model.config, jax.jit(model.init)(jax.random.key(0)))
    settings = config_of(base, RECIPES["prompt"], init_from=str(base / "t5"))
    settings["data"] |= {"objective": "seq2seq", "targets_length": 20}
    batch = assemble(settings, tmp_path).source.batch(0)
    for inputs, segments in zip(batch["inputs"], batch["input_segment_ids"], strict=True):
        for segment in range(1, segments.max() + 1):
            mine = inputs[segments == segment]
            assert mine[:3].tolist() == [264, 265, 266] and mine[3:].max() < 264
    assert batch["tokens"].max() < 264 and batch["targets"].max() < 264 and (batch["tokens"][:, 0] == 0).all()
    result = train.run(settings, tmp_path / "run", Console(quiet=True))
    assert list(tree.paths(result.state.params)) == ["embed/tokens/embedding/prompt"]
    _, params, _ = load_run(tmp_path / "run" / "checkpoints")
    learned = params["embed"]["tokens"]["embedding"].prompt
    np.testing.assert_array_equal(learned, result.state.params["embed"]["tokens"]["embedding"].prompt)
    out = generate(model, params, [[50, 51, 1]], max_new_tokens=3)
    assert out.prompts[0][:3] == [264, 265, 266] and out.lengths.tolist() == [3]
    # What the prompt has learned is seen by the encoder, so the decoder's next words change with it.
    plain = generate(model, load_params(base / "t5")[0], [[50, 51, 1]], max_new_tokens=3)
    assert not np.allclose(out.logprobs, plain.logprobs)


def test_what_cannot_be_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="give either `trainable` or `peft`"):
        assemble(config_of(base, RECIPES["lora"], trainable=(".*norm.*",)), tmp_path)
    packed = {"kind": "python_docs", "objective": "causal", "length": 62}
    with pytest.raises(ValueError, match=r"data.length 62 and 3 virtual tokens do not fit the model's max_length 64"):
        assemble(config_of(base, RECIPES["prompt"], data=packed), tmp_path)
