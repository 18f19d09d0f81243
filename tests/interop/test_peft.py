"""Adapter files against the `peft` library: theirs loads ours, ours loads theirs, the logits are the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research import weights
from research.core import tree
from research.data.virtual import prepend
from research.interop import load_pretrained, save_pretrained
from research.interop.peft import load_adapter, save_adapter
from research.models import build
from research.weights.prompts import virtual_ids
from tests.models.conftest import tiny_config
from tests.parity.zoo import quick_jit

LINEARS = r".*/(attention|cross|mlp)/\w+/kernel"
RECIPES = {
    "lora": {"method": "lora", "rank": 3, "alpha": 5.0, "target": LINEARS},
    "rslora": {"method": "rslora", "rank": 2},
    "dora": {"method": "dora", "rank": 3, "target": r".*/(attention|cross)/o/kernel"},
    "ia3": {"method": "ia3"},
    "prompt": {"method": "prompt", "length": 3},
    "prefix": {"method": "prefix", "length": 3},
}
CLASSES = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "bloom": "BloomForCausalLM"}
CLASSES |= {"bert": "BertForMaskedLM", "t5-v1.1": "T5ForConditionalGeneration"}
CASES = [(f, m) for f in ("llama", "gpt2", "bloom") for m in RECIPES]
CASES += [(f, m) for f in ("bert", "t5-v1.1") for m in ("lora", "dora", "ia3")]


def pair(family, method):
    model = build(tiny_config(family, **({"d_ff": 128} if family == "bloom" else {})))
    params = jax.jit(model.init)(jax.random.key(0))
    recipe = RECIPES[method]
    adapted = weights.attach(params, recipe, jax.random.key(1), config=model.config)
    learns, frozen = tree.split(adapted, weights.trainable(adapted, recipe))
    leaves, structure = jax.tree.flatten(learns)
    noisy = [w + 0.3 * jax.random.normal(jax.random.key(i), w.shape) for i, w in enumerate(leaves)]
    return model, params, tree.merge(jax.tree.unflatten(structure, noisy), frozen)


def batch_for(model):
    ids = np.random.default_rng(2).integers(3, model.config.vocab_size, (2, 7)).astype(np.int32)
    return {"tokens": ids} | ({"inputs": ids[:, :5]} if model.config.kind == "encoder_decoder" else {})


def ours(model, params, batch):
    extra = virtual_ids(params)
    given = prepend(batch, extra) if extra else batch
    given = {k: jnp.asarray(v) for k, v in given.items()}
    logits = quick_jit(lambda p, b: model.logits(p, model.apply(p, b).hidden))(params, given)
    return np.asarray(logits)[:, len(extra) :]


def theirs(peft_model, model, batch, virtual):
    torch = pytest.importorskip("torch")
    ids = torch.from_numpy(batch["tokens"]).long()
    with torch.no_grad():
        if "inputs" in batch:
            inputs = torch.from_numpy(batch["inputs"]).long()
            return peft_model(input_ids=inputs, decoder_input_ids=ids).logits.numpy()
        return peft_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()[:, virtual:]


@pytest.mark.oracle
@pytest.mark.parametrize(("family", "method"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_their_library_computes_the_same_and_its_file_comes_back(family, method, tmp_path):
    peft = pytest.importorskip("peft", reason="needs the oracles extra")
    transformers = pytest.importorskip("transformers")
    model, params, adapted = pair(family, method)
    save_pretrained(tmp_path / "base", model.config, params)
    save_adapter(tmp_path / "adapter", model.config, adapted, base=str(tmp_path / "base"))
    base = getattr(transformers, CLASSES[family]).from_pretrained(tmp_path / "base", attn_implementation="eager").eval()
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    batch = batch_for(model)
    virtual = len(virtual_ids(adapted))
    expected = ours(model, adapted, batch)
    np.testing.assert_allclose(theirs(loaded, model, batch, virtual), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - ours(model, params, batch)).max() > 1e-3

    loaded.save_pretrained(tmp_path / "theirs")
    _, again, _ = load_pretrained(tmp_path / "base")
    back = load_adapter(tmp_path / "theirs", model.config, again)
    np.testing.assert_allclose(ours(model, back, batch), expected, rtol=1e-4, atol=1e-4)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    model, params, adapted = pair("llama", "lora")
    folder = save_adapter(tmp_path / "a", model.config, adapted)
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())

    def refused(message, tensors=tensors, **changes):
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match=message):
            load_adapter(folder, model.config, params)

    key = next(iter(tensors))
    ninth = {key.replace("layers.0", "layers.9"): tensors[key]}
    refused("adapts modules that this model does not have", ninth | tensors)
    refused("is no part of a LORA adapter", tensors | {"base_model.model.score.weight": tensors[key]})
    refused("the target 'mlp.router' has no tensors", target_modules=["mlp.router"])
    refused("adapters of type 'LOHA' are not known", peft_type="LOHA")
    refused("is of another base: given", {k: v[:, :-1] if k.endswith("A.weight") else v for k, v in tensors.items()})
    with pytest.raises(ValueError, match=r"one kind of adapter; the weights have \[\]"):
        save_adapter(tmp_path / "b", model.config, params)
    with pytest.raises(ValueError, match="no adapter of type Bottleneck"):
        save_adapter(tmp_path / "b", model.config, weights.attach(params, {"method": "houlsby"}, jax.random.key(0)))


def test_a_soft_prompt_is_kilobytes(tmp_path):
    model, _, adapted = pair("llama", "prompt")
    folder = save_adapter(tmp_path / "a", model.config, adapted)
    assert (folder / "adapter_model.safetensors").stat().st_size < 3 * 32 * 4 + 300
