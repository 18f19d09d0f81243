"""tools/convert_checkpoint.py: every form into every other, errors of one line; and the model inside a run."""

import importlib.util
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import tree
from research.interop import load_pretrained, save_pretrained
from research.interop.llama2c import load_llama2c, save_llama2c
from research.interop.run import config_from_dict, config_to_dict, load_run, save_run
from research.models import build, preset
from research.ops.positions import Rope
from tests.interop.conftest import PRESETS, small

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def convert():
    spec = importlib.util.spec_from_file_location("convert_checkpoint", ROOT / "tools" / "convert_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


@pytest.fixture
def story(tmp_path: Path) -> Path:
    config, params = small("llama", rope=Rope(), head_dim=4, n_kv_heads=2, tied=True)
    return save_llama2c(tmp_path / "story.bin", config, params)


def test_around_all_forms_and_back(convert, story: Path, tmp_path: Path) -> None:
    assert convert(story, tmp_path / "hf") == 0
    assert convert(tmp_path / "hf", tmp_path / "run", "--to", "run") == 0
    assert convert(tmp_path / "run", tmp_path / "back.bin") == 0
    assert (tmp_path / "back.bin").read_bytes() == story.read_bytes()
    assert convert(tmp_path / "run", tmp_path / "hf2", "--dtype", "bf16", "--max-shard-bytes", 3000) == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(load_pretrained(tmp_path / "hf2").params)} == {jnp.dtype("bfloat16")}
    assert convert(tmp_path / "hf", tmp_path / "legacy.bin", "--version", 0) == 0
    assert load_llama2c(tmp_path / "legacy.bin")[0] == load_llama2c(story)[0]


def test_a_run_is_quantized_and_becomes_plain_again(convert, story: Path, tmp_path: Path, capsys) -> None:
    assert convert(story, tmp_path / "few", "--to", "run", "--quantize", "nf4") == 0
    config, params, meta = load_run(tmp_path / "few")
    assert meta["config"]["peft"][0]["method"] == "nf4"
    assert f"{tree.count(build(config).abstract()):,} parameters" in capsys.readouterr().out
    assert convert(tmp_path / "few", tmp_path / "copy", "--to", "run") == 0
    chex.assert_trees_all_equal(load_run(tmp_path / "copy")[1], params)
    assert convert(tmp_path / "few", tmp_path / "hf") == 0
    plain = load_pretrained(tmp_path / "hf").params
    chex.assert_trees_all_equal(plain, weights.dequantize(params))
    assert convert(tmp_path / "few", tmp_path / "low", "--to", "run", "--dtype", "bf16") == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(load_run(tmp_path / "low")[1])} == {jnp.dtype("bfloat16")}


def test_what_was_trained_for_rounding_is_rounded_once(convert, tmp_path: Path) -> None:
    config, params = small("gpt2")
    aware = weights.attach(params, {"method": "qat", "bits": 3}, jax.random.key(0))
    save_run(tmp_path / "qat", config, aware, {"method": "qat", "bits": 3})
    assert convert(tmp_path / "qat", tmp_path / "int3", "--to", "run", "--quantize", "int3") == 0
    chex.assert_trees_all_equal(load_run(tmp_path / "int3")[1], weights.quantize(params, {"method": "int3"}))


def test_a_card_and_the_parent_are_written(convert, tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path / "gpt2", *small("gpt2"))
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"licence": "mit", "data": [{"name": "docs", "sha256": "00ff"}]}))
    assert convert(folder, tmp_path / "out", "--card", card, "--head", "sequence") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "mit"' in text and "00ff" in text and f'base_model: "{folder}"' in text
    assert load_pretrained(tmp_path / "out").config.head == "sequence"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/absent.bin", "{tmp}/x"], "no llama2.c checkpoint at"),
        (["./absent/folder", "{tmp}/x"], "no folder at './absent/folder'"),
        (["{tmp}/story.bin", "{tmp}/story.bin"], "already holds something; choose another target or pass --overwrite"),
        (["{tmp}/story.bin", "{tmp}/x", "--head", "mlm"], "--head does nothing for llama2c here"),
        (["{tmp}/story.bin", "{tmp}/x", "--step", "3"], "--step does nothing for llama2c here"),
        (["{tmp}/story.bin", "{tmp}/x", "--version", "0"], "--version does nothing for hf here"),
        (["{tmp}/story.bin", "{tmp}/x", "--quantize", "nf4"], "--quantize does nothing for hf here"),
        (["{tmp}/story.bin", "{tmp}/x", "--to", "run", "--quantize", "nf5"], "'nf5', did you mean 'nf4'"),
        (["{tmp}/story.bin", "{tmp}/x", "--to", "run", "--quantize", "gptq"], "'gptq' is calibrated on text"),
        (["{tmp}/story.bin", "{tmp}/x.bin", "--tokenizer", "t"], "--tokenizer does nothing for llama2c here"),
        (["{tmp}/story.bin", "{tmp}/x", "--dtype", "int4"], "unknown precision 'int4'"),
        (["{tmp}/story.bin", "{tmp}/x", "--card", "{tmp}/bad.json"], "has unknown fields ['colour']; a card has"),
    ],
)
def test_errors_are_one_line(convert, story: Path, tmp_path: Path, capsys, arguments, message: str) -> None:
    (tmp_path / "bad.json").write_text('{"colour": "red"}')
    assert convert(*(argument.format(tmp=tmp_path) for argument in arguments)) == 1
    said = capsys.readouterr().err
    assert said.startswith("convert_checkpoint: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize("name", PRESETS.values())
def test_a_model_config_survives_json(name: str) -> None:
    config = preset(name)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    assert config_from_dict({"preset": name, "n_layers": 3}) == config.replace(n_layers=3)


def test_a_run_holds_its_model(tmp_path: Path) -> None:
    config, params = small("gemma3_text")
    back, loaded, meta = load_run(save_run(tmp_path, config, params))
    assert back == config and meta["step"] == 0
    for path, leaf in tree.paths(loaded).items():
        np.testing.assert_array_equal(leaf, tree.paths(params)[path])


def test_a_run_of_another_model_is_refused(tmp_path: Path) -> None:
    config, params = small("gpt2")
    save_run(tmp_path, config.replace(vocab_size=50), params)
    with pytest.raises(ValueError, match=r"embed/tokens/embedding: expected \(50, 16\), given \(41, 16\)"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="unknown model field 'n_layer', did you mean 'n_layers'"):
        config_from_dict({"n_layer": 3})
    with pytest.raises(ValueError, match="the stored model config is incomplete"):
        config_from_dict({"n_layers": 3})
