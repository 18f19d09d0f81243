"""Hugging Face folders: bit-equal round trips, strict accounting, shards, damaged files, no torch, no network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research.core import tree
from research.interop import load_pretrained, save_pretrained
from research.interop.folder import Tensors, open_folder
from research.interop.hf_config import canonical
from research.interop.hf_read import read_params
from research.models import preset
from tests.interop.conftest import small

GPT2 = "gpt2"


def assert_same_bits(first, second) -> None:
    a, b = tree.paths(first), tree.paths(second)
    assert sorted(a) == sorted(b)
    for path, leaf in a.items():
        assert leaf.dtype == b[path].dtype and np.array_equal(np.asarray(leaf), np.asarray(b[path])), path


def change(folder: Path, edit) -> None:
    """Rewrites the tensors of a folder after `edit` has changed the dict."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    config, params = small(GPT2)
    return save_pretrained(tmp_path / "gpt2", config, params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip_is_bit_equal(family: str, dtype, tmp_path: Path) -> None:
    config, params = small(family, dtype)
    loaded = load_pretrained(save_pretrained(tmp_path, config, params))
    assert_same_bits(params, loaded.params)
    assert canonical(loaded.config) == canonical(config)
    assert loaded.extras.unread == () and loaded.extras.fresh == ()


@pytest.mark.parametrize("head", ["sequence", "token", "scalar", "none"])
def test_heads_make_the_round_trip(family: str, head: str, tmp_path: Path) -> None:
    if head == "token" and family in ("bart", "gemma3_text"):
        pytest.skip("transformers has no such class")
    pooled = family in ("bert", "roberta", "bart", "t5", "t5-untied")
    changes = {"head": head, "head_bias": pooled or head == "token", "head_dense": pooled and head != "token"}
    if family.startswith("t5") and head == "token":
        changes["kind"] = "encoder"
    config, params = small(family, **changes)
    save_pretrained(tmp_path, config, params)
    loaded = load_pretrained(tmp_path, head="scalar" if head == "scalar" else None)
    assert loaded.config.head == head and canonical(loaded.config) == canonical(config)
    assert_same_bits(params, loaded.params)


def test_cut_and_unstacked_layers_are_written_as_one_model(gpt2: Path, tmp_path: Path) -> None:
    config, params = small(GPT2)
    for number, form in enumerate((tree.cut(params, [1]), tree.unstack(params))):
        other = save_pretrained(tmp_path / str(number), config, form)
        assert (other / "model.safetensors").read_bytes() == (gpt2 / "model.safetensors").read_bytes()


def test_types_can_be_chosen_while_loading(gpt2: Path) -> None:
    params = load_pretrained(gpt2, dtype="bf16").params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    with pytest.raises(ValueError, match="unknown precision 'int3'"):
        load_pretrained(gpt2, dtype="int3")


def test_shards_hold_the_same_model_and_leave_nothing_behind(gpt2: Path) -> None:
    config, params = small(GPT2)
    save_pretrained(gpt2, config, params, max_shard_bytes=4000)
    shards = sorted(path.name for path in gpt2.glob("*.safetensors"))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all((gpt2 / name).stat().st_size < 6000 for name in shards)
    index = json.loads((gpt2 / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == tree.nbytes(params)
    assert_same_bits(params, load_pretrained(gpt2).params)
    save_pretrained(gpt2, config, params)
    assert sorted(path.name for path in gpt2.glob("model*")) == ["model.safetensors"]
    with pytest.raises(ValueError, match="given max_shard_bytes=0"):
        save_pretrained(gpt2, config, params, max_shard_bytes=0)


def test_every_tensor_is_read_once(gpt2: Path) -> None:
    opened = open_folder(gpt2)
    reads = []

    class Counting(Tensors):
        def read(self, name: str) -> np.ndarray:
            reads.append(name)
            return super().read(name)

    read_params(small(GPT2)[0], Counting(opened.folder, opened.files))
    assert sorted(reads) == opened.names


def test_missing_unexpected_and_misshaped_tensors_are_listed_together(gpt2: Path) -> None:
    def spoil(tensors: dict) -> None:
        del tensors["transformer.h.1.ln_2.weight"]
        tensors["transformer.h.3.ln_1.weight"] = np.zeros(16, np.float32)
        tensors["transformer.h.0.attn.c_attn.weight"] = np.zeros((16, 47), np.float32)

    change(gpt2, spoil)
    with pytest.raises(ValueError) as error:
        load_pretrained(gpt2)
    message = str(error.value)
    assert "missing ['transformer.h.1.ln_2.weight']" in message
    assert "unexpected ['transformer.h.3.ln_1.weight']" in message
    assert "transformer.h.0.attn.c_attn.weight: given (16, 47), expected (16, 48)" in message
    assert "\n" not in message


def test_a_tied_copy_is_accepted_only_when_equal(gpt2: Path) -> None:
    change(gpt2, lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"]}))
    assert_same_bits(small(GPT2)[1], load_pretrained(gpt2).params)
    change(gpt2, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(ValueError, match=r"lm_head.weight differs from transformer.wte.weight"):
        load_pretrained(gpt2)


def test_a_table_saved_only_as_output_layer_is_found(gpt2: Path) -> None:
    change(gpt2, lambda t: t.update({"lm_head.weight": t.pop("transformer.wte.weight")}))
    assert_same_bits(small(GPT2)[1], load_pretrained(gpt2).params)


def test_names_of_the_bare_model_and_known_buffers_are_understood(gpt2: Path) -> None:
    def bare(tensors: dict) -> None:  # as the first GPT-2 files are
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 20, 20), np.float32))

    change(gpt2, bare)
    assert_same_bits(small(GPT2)[1], load_pretrained(gpt2).params)


def test_old_names_of_bert_and_its_second_head(tmp_path: Path) -> None:
    config, params = small("bert")
    save_pretrained(tmp_path, config, params)

    def old(tensors: dict) -> None:
        for name in list(tensors):
            if "LayerNorm" in name:
                new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
                tensors[new] = tensors.pop(name)
        tensors["bert.pooler.dense.weight"] = np.ones((16, 16), np.float32)
        tensors["bert.pooler.dense.bias"] = np.full(16, 3, np.float32)
        tensors["cls.seq_relationship.weight"] = np.ones((2, 16), np.float32)

    change(tmp_path, old)
    loaded = load_pretrained(tmp_path)
    assert_same_bits(params, loaded.params)
    assert loaded.extras.unread == ("bert.pooler.dense.bias", "bert.pooler.dense.weight", "cls.seq_relationship.weight")

    classifier = load_pretrained(tmp_path, head="sequence", key=jax.random.key(3))
    assert classifier.extras.fresh == ("head/output/kernel", "head/output/bias")
    assert float(classifier.params["head"]["dense"]["bias"][0]) == 3  # the pooler that the file holds
    assert np.std(np.asarray(classifier.params["head"]["output"]["kernel"])) > 0
    other = load_pretrained(tmp_path, head="sequence", key=jax.random.key(4))
    kernels = [model.params["head"]["output"]["kernel"] for model in (classifier, other)]
    assert not np.array_equal(*map(np.asarray, kernels))


def test_output_bias_of_bart_follows_the_file(tmp_path: Path) -> None:
    for number, biased in enumerate((False, True)):
        config, params = small("bart", lm_bias=biased)
        folder = save_pretrained(tmp_path / str(number), config, params)
        assert "final_logits_bias" in load_file(folder / "model.safetensors")
        loaded = load_pretrained(folder)
        assert loaded.config.lm_bias is biased
        assert_same_bits(params, loaded.params)


def test_tokenizer_generation_and_neutral_keys_travel_along(gpt2: Path, tmp_path: Path) -> None:
    (gpt2 / "tokenizer.json").write_text("{}")
    (gpt2 / "generation_config.json").write_text('{"temperature": 0.5}')
    (gpt2 / "config.json").write_text(
        json.dumps(json.loads((gpt2 / "config.json").read_text()) | {"task_specific_params": {"a": 1}})
    )
    loaded = load_pretrained(gpt2)
    extras = loaded.extras
    assert extras.tokenizer_files == ("tokenizer.json",) and extras.generation == {"temperature": 0.5}
    other = save_pretrained(
        tmp_path / "other",
        loaded.config,
        loaded.params,
        tokenizer=extras,
        generation_config=extras.generation,
        hf_config=extras.hf_config,
    )
    names = sorted(path.name for path in other.iterdir())
    assert names == ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert json.loads((other / "generation_config.json").read_text()) == {"temperature": 0.5}
    assert json.loads((other / "config.json").read_text())["task_specific_params"] == {"a": 1}


def test_saving_refuses_other_parameters_and_other_types(tmp_path: Path) -> None:
    config, params = small(GPT2)
    with pytest.raises(ValueError, match=r"missing \['decoder/final_norm/bias'"):
        save_pretrained(tmp_path, config, params | {"decoder": {"layers": params["decoder"]["layers"]}})
    with pytest.raises(ValueError, match=r"embed/tokens/embedding: given \(41, 16\), expected \(43, 16\)"):
        save_pretrained(tmp_path, config.replace(vocab_size=43), params)
    with pytest.raises(TypeError, match=r"\['_Leaf'\] have no form in a checkpoint"):
        save_pretrained(tmp_path, config, params | {"head": {"strange": _Leaf()}})


@jax.tree_util.register_pytree_node_class
class _Leaf:
    def tree_flatten(self):
        return (), None

    @classmethod
    def tree_unflatten(cls, _, __):
        return cls()


def test_damaged_folders_are_refused_in_one_sentence(gpt2: Path, tmp_path: Path) -> None:
    whole = (gpt2 / "model.safetensors").read_bytes()
    (gpt2 / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors is not a complete safetensors file"):
        load_pretrained(gpt2)
    (gpt2 / "model.safetensors").rename(gpt2 / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"only pickled weights \['pytorch_model.bin'\].*save_pretrained"):
        load_pretrained(gpt2)
    (gpt2 / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        load_pretrained(gpt2)
    (gpt2 / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        load_pretrained(gpt2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no config.json; it has \[\]"):
        load_pretrained(tmp_path / "empty")


def test_shards_that_contradict_their_index_are_refused(gpt2: Path) -> None:
    save_pretrained(gpt2, *small(GPT2), max_shard_bytes=4000)
    index = gpt2 / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def write(**changes: str) -> None:
        index.write_text(json.dumps(good | {"weight_map": good["weight_map"] | changes}))

    write(**{"transformer.extra": "model-00001-of-00001.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"has no model-00001-of-00001.safetensors"):
        load_pretrained(gpt2)
    write(**{"transformer.extra": good["weight_map"]["transformer.wte.weight"]})
    with pytest.raises(ValueError, match=r"disagree about \['transformer.extra'\]"):
        load_pretrained(gpt2)
    write(**{"transformer.wte.weight": "../secret.safetensors"})
    with pytest.raises(ValueError, match=r"names files outside its folder: \['../secret.safetensors'\]"):
        load_pretrained(gpt2)


@pytest.mark.parametrize("name", ["owner/model", "gpt2-that-nobody-has"])
def test_a_hub_id_without_network_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=f"no folder named '{name}', none in the local cache.*OFFLINE is set"):
        load_pretrained(name)


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    """In a process of its own, for the library reads its settings once: nothing listens at port 9."""
    program = (
        "from research.interop import load_pretrained\ntry: load_pretrained('owner/model')\n"
        "except FileNotFoundError as error: print(error)"
    )
    there = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | there)
    said = r"no folder named 'owner/model', none in the local cache .* did not deliver it: .*\n"
    assert re.fullmatch(said, ran.stdout) and ran.stderr == ""


def test_a_path_that_is_no_folder_is_named(gpt2: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at './nothing/here'"):
        load_pretrained("./nothing/here")
    with pytest.raises(FileNotFoundError, match=r"config.json is a file; expected a folder"):
        load_pretrained(gpt2 / "config.json")


def test_torch_is_never_imported(gpt2: Path) -> None:
    program = (
        "import sys; from research.interop import load_pretrained, save_pretrained\n"
        f"m = load_pretrained({str(gpt2)!r}); save_pretrained({str(gpt2 / 'again')!r}, m.config, m.params)\n"
        "print(sorted({'torch', 'transformers', 'pickle5'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_family_without_a_table_is_refused(tmp_path: Path) -> None:
    config = preset("palm-8b", n_layers=1, d_model=8, n_heads=2, d_ff=8, vocab_size=11)
    with pytest.raises(ValueError, match=r"model_type 'palm' is not supported; have \['bart', 'bert'"):
        save_pretrained(tmp_path, config, {})
