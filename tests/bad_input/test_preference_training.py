"""Bad input of preference training by config, and of single judged answers: one line, before any work is done."""

import json

import numpy as np
import pytest

from configs import preference_tuning
from research.data.build import build_source
from research.data.byte_tokenizer import ByteTokenizer
from research.data.preference_rows import encode_preferences
from research.data.unpaired import as_judged, encode_unpaired
from research.interop.run import save_run
from research.models import build, preset
from research.recipes import losses
from research.recipes.assemble import assemble, complete, make_model
from research.recipes.dpo import preference_loss
from research.recipes.kto import kto_loss

BYTES = ByteTokenizer()
SIZES = {"d_model": 8, "n_layers": 1, "n_heads": 2, "head_dim": 4, "d_ff": 16, "max_length": 32}
GPT2 = preset("gpt2").replace(vocab_size=300, **SIZES)
PAIR = {"prompt": "Why? ", "chosen": "Because.", "rejected": "No."}
ANSWER = {"prompt": "Why? ", "completion": "Because.", "label": True}
LORA = {"method": "lora", "rank": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files with one thing wrong each, and a run of another size."""
    root = tmp_path_factory.mktemp("files")
    pairs = [PAIR | {"prompt": f"{i}? "} for i in range(8)]
    files = {
        "pairs": pairs,
        "equal": [*pairs, PAIR | {"rejected": "Because."}],
        "empty": [*pairs, PAIR | {"chosen": " "}],
        "ties": [pair | {"preferred": 0.5} for pair in pairs],
        "good": [ANSWER | {"prompt": f"{i}? "} for i in range(8)],
        "one_prompt": [ANSWER | {"label": i % 2 == 0} for i in range(8)],
    }
    for name, rows in files.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wide = GPT2.replace(d_model=16, vocab_size=259)
    shapes = build(wide).abstract()
    save_run(root / "wide", wide, {k: _zeros(v) for k, v in shapes.items()})
    return root


def _zeros(part):
    return {k: _zeros(v) for k, v in part.items()} if isinstance(part, dict) else np.zeros(part.shape, part.dtype)


def config(folder, arg, file="pairs", **changes):
    made = preference_tuning.get_config(f"{arg},tiny").to_dict()
    made["model"] = {"preset": "gpt2", "policy": "f32", **SIZES} | ({"head": "scalar"} if arg == "reward" else {})
    made["data"] |= {"path": str(folder / f"{file}.jsonl"), "length": 16, "heldout": 0.0, "unusable": "error"}
    made["data"]["long"] = "error"
    for name, value in changes.items():
        made[name] = made[name] | value if isinstance(made.get(name), dict) else value
    return complete(made)


def run(folder, arg, file="pairs", **changes):
    assemble(config(folder, arg, file, **changes), folder)


def chosen(folder, arg="dpo", **changes):
    given = config(folder, arg, **changes)
    return losses.make(losses.choose(given), make_model(given, BYTES).model, chunk=8)


CASES = {
    "equal answers": (
        lambda f: run(f, "dpo", "equal"),
        "train split of .*equal.jsonl: example 8: chosen and rejected are equal: 'Because.'",
    ),
    "empty answer": (lambda f: run(f, "kto", "empty"), "example 8: the chosen answer is empty"),
    "long pairs": (
        lambda f: run(f, "dpo", data={"length": 9}),
        r"8 of 8 pairs exceed 9 tokens \(the longest has 12\); choose long='truncate' or 'drop'",
    ),
    "long answers": (
        lambda f: run(f, "reward", data={"length": 9, "long": "truncate"}),
        "8 of 8 pairs have an answer of 9 tokens or more",
    ),
    "all answers too long": (
        lambda f: run(f, "dpo", data={"length": 9, "long": "truncate", "unusable": "drop"}),
        "all 8 pairs exceed 9 tokens with their answers alone: none is left",
    ),
    "rows longer than the window": (
        lambda f: run(f, "dpo", data={"length": 64}),
        "data.length 64 is longer than the model's max_length 32",
    ),
    "ties alone": (lambda f: run(f, "reward", "ties"), "all 8 pairs are ties: there is nothing to prefer"),
    "good answers alone": (lambda f: run(f, "kto", "good"), "all 8 answers are desirable; learning from single"),
    "one prompt": (lambda f: run(f, "kto", "one_prompt"), "all 8 answers are to one prompt"),
    "reference of another size": (
        lambda f: run(f, "dpo", loss={"reference_from": str(f / "wide")}),
        r"the reference has another architecture than the policy \(in brackets\): d_model 16 \(8\)",
    ),
    "tie without its better answer": (
        lambda f: as_judged(PAIR | {"preferred": 0.5}),
        "a tie has no better answer",
    ),
    "answer without a label": (lambda f: as_judged({"prompt": "a", "completion": "b"}), "no column label; it has"),
    "label in words": (lambda f: as_judged(ANSWER | {"label": "yes"}), "label must be true .* given 'yes'"),
    "answer in no column": (lambda f: as_judged({"text": "a", "label": True}), r"unknown columns \['label', 'text'\]"),
    "answer that is no text": (lambda f: as_judged(ANSWER | {"completion": 3}), "the answer must be a text, got int"),
    "empty completion": (
        lambda f: encode_unpaired([ANSWER, ANSWER | {"completion": ""}], BYTES, length=20),
        "example 1: the answer is empty",
    ),
    "unknown loss": (lambda f: chosen(f, loss={"name": "dop"}), "unknown loss 'dop', did you mean 'dpo'"),
    "options of no loss": (lambda f: chosen(f, loss={"name": ""}), "loss.name is missing beside"),
    "unknown option": (lambda f: chosen(f, loss={"betta": 1}), "'dpo' has no option 'betta', did you mean 'beta'"),
    "option of another loss": (lambda f: chosen(f, loss={"tau": 0.1}), "'dpo' has no option 'tau'"),
    "option of reward models": (
        lambda f: chosen(f, "reward", loss={"centre": 0.1}),
        "'reward' has no option 'centre', did you mean 'center'",
    ),
    "option of KTO": (
        lambda f: chosen(f, "kto", loss={"desirable_wieght": 1.0}),
        "did you mean 'desirable_weight'",
    ),
    "option in words": (lambda f: chosen(f, loss={"beta": "0.1"}), "loss.beta is a number; given '0.1'"),
    "unknown reference": (
        lambda f: chosen(f, loss={"reference": "adaptor"}),
        "unknown reference 'adaptor', did you mean 'adapter'",
    ),
    "reference of a loss that has none": (
        lambda f: chosen(f, "simpo", loss={"reference": "batch"}),
        "'simpo' has no reference; given loss.reference",
    ),
    "adapter without peft": (
        lambda f: chosen(f, loss={"reference": "adapter"}),
        "reference 'adapter' is the base below what peft attaches, and there is no peft",
    ),
    "copy beside adapters": (
        lambda f: chosen(f, peft=LORA, loss={"reference": "copy"}),
        "reference 'copy' is for training without peft",
    ),
    "two references": (
        lambda f: chosen(f, peft=LORA, loss={"reference_from": "x"}),
        "reference_from needs 'copy' or 'batch'",
    ),
    "adapter of a copy": (
        lambda f: chosen(f, loss={"reference": "copy", "adapter": "mine"}),
        "loss.adapter says what reference 'adapter' takes off; given with 'copy'",
    ),
    "reference that learns": (
        lambda f: run(f, "dpo", peft=[LORA, {"method": "norms"}]),
        "reference 'adapter' is what is below the adapters, and peft trains '.*norm.*' there",
    ),
    "biases that learn beside no adapter": (
        lambda f: run(f, "dpo", peft={"method": "bitfit"}),
        "the policy has no adapter that could be taken off",
    ),
    "pairs without a loss": (
        lambda f: losses.choose(config(f, "dpo") | {"loss": {}}),
        r"objective 'preference' needs a loss: set loss.name to one of \['dpo'",
    ),
    "KTO of pairs": (
        lambda f: chosen(f, "kto", data={"objective": "preference"}),
        r"loss 'kto' learns from the objectives \('unpaired', 'unpaired_seq2seq'\); given 'preference'",
    ),
    "encoder that is to answer": (
        lambda f: chosen(f, model={"preset": "bert-base"}),
        "answers are written by a decoder with head 'lm'; this model is of kind 'encoder'",
    ),
    "reward of a language model": (
        lambda f: chosen(f, "reward", model={"head": "lm"}),
        "ranking needs a head 'scalar'; the model has 'lm'",
    ),
    "rows of a decoder for an encoder-decoder": (
        lambda f: chosen(f, model={"preset": "t5-small"}),
        "objective 'preference' needs a model of kind 'decoder' or 'encoder'; 't5' is of kind 'encoder_decoder'",
    ),
    "KTO beside an unknown reference": (
        lambda f: kto_loss(build(GPT2), reference="copied"),
        "unknown reference 'copied', did you mean 'copy'",
    ),
    "KTO with a beta of 0": (lambda f: kto_loss(build(GPT2), beta=0.0), "beta must be above 0, given 0"),
    "DPO on a scorer": (
        lambda f: preference_loss(build(GPT2.replace(head="scalar"))),
        "answers are written by a decoder with head 'lm'",
    ),
    "unknown data option": (
        lambda f: build_source(config(f, "dpo")["data"] | {"unuseable": "drop"}, BYTES),
        r"unknown data options \['unuseable'\], did you mean 'unusable'",
    ),
    "unknown answer to the unusable": (
        lambda f: build_source(config(f, "dpo", data={"unusable": "keep"})["data"], BYTES),
        "unknown unusable='keep'; have",
    ),
    "unknown cut": (lambda f: encode_preferences([PAIR], BYTES, length=20, long="trim"), "unknown long='trim'; have"),
    "unknown config argument": (
        lambda f: preference_tuning.get_config("dpo,small"),
        "unknown argument 'dpo,small' of configs/preference_tuning.py; have one of",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refusals(folder, name):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(folder)
    assert "\n" not in str(caught.value)
