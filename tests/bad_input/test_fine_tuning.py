"""Bad input of fine-tuning: patterns, ranks, adapters, templates, mixtures, prompts; the same kind of table."""

from pathlib import Path

import jax
import pytest

from research import weights
from research.data import build_rows
from research.data.build import DataConfig
from research.data.byte_tokenizer import ByteTokenizer
from research.data.mixtures import Mixture
from research.data.sources import Stream
from research.data.task_templates import templated_file
from research.decoding import generate
from research.interop.peft import load_adapter, save_adapter
from research.models import build, preset
from research.recipes.assemble import check_fits

TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)
MODEL = build(TINY)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def adapted(params, **recipe):
    return weights.attach(params, recipe, jax.random.key(1), config=TINY)


class Ten:
    def __len__(self):
        return 10


def rows_file(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b"}\n')
    return path


class Fifty:
    vocab_size = 50


def pairs_file(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text('{"prompt": "a long prompt", "completion": "b"}\n')
    return path


def seq2seq(path: Path, **more):
    return {"kind": "examples", "path": str(path), "objective": "seq2seq", "length": 32, "heldout": 0.0} | more


def another_base(params, folder):
    save_adapter(folder, TINY, adapted(params, method="lora", rank=2))
    load_adapter(folder, TINY, jax.tree.map(lambda w: w + 1, params))


def prompt_id_outside(params, folder):
    del folder
    tuned = adapted(params, method="prompt", length=3)
    # Ids behind the vocabulary stand for the prompt's tokens: 50, 51 and 52.
    generate(MODEL, tuned, [[4, 53]], max_new_tokens=1)


CASES = {
    "pattern that matches nothing": (
        lambda w, p: adapted(w, method="lora", target=".*/attention/query/kernel"),
        "query.*decoder/layers/attention/q/kernel",
    ),
    "rank 0": (lambda w, p: adapted(w, method="lora", rank=0), "rank 0 does not fit .* of 16 x 16; expected 1 to 16"),
    "rank above the matrix": (lambda w, p: adapted(w, method="lora", rank=17), "rank 17 does not fit .* 1 to 16"),
    "unknown method": (lambda w, p: adapted(w, method="lorra"), "'lorra', did you mean 'lora'"),
    "unknown option": (lambda w, p: adapted(w, method="lora", ranks=2), "no option 'ranks', did you mean 'rank'"),
    "more layers than there are": (lambda w, p: adapted(w, method="last_layers", count=2), "count 2 .* 1 layers"),
    "adapter for another base": (another_base, "is of another base: it was made for the weights .*, given are"),
    "template field missing from a row": (
        lambda w, p: list(templated_file(rows_file(p), ["{{ text }} ||| {{ label }}"])),
        r"rows.jsonl:2: .*needs what is not there.*'label'.*it has \['text'\]",
    ),
    "template without a separator": (
        lambda w, p: list(templated_file(rows_file(p), ["{{ text }}"])),
        "'prompt ||| completion'.*has 0 separators",
    ),
    "negative mixture weight": (
        lambda w, p: Mixture({"a": Stream(Ten()), "b": Stream(Ten())}, {"a": 1.0, "b": -0.5}),
        "rates must be positive.*'b': -0.5",
    ),
    "empty task": (lambda w, p: Stream([]), "holds no rows: nothing to train on"),
    "template in a data section, field missing": (
        lambda w, p: build_rows(seq2seq(rows_file(p), templates=("{{ text }} ||| {{ label }}",)), ByteTokenizer()),
        r"rows.jsonl:2: .*needs what is not there.*it has \['text'\]",
    ),
    "template for plain text": (
        lambda w, p: DataConfig.of({"kind": "text", "templates": ("a ||| b",)}),
        "templates make examples.*objective is 'causal'",
    ),
    "columns that are no pair": (
        lambda w, p: build_rows(seq2seq(rows_file(p)), ByteTokenizer()),
        r"train split of .*rows.jsonl: example 0: .*prompt \+ completion.*got columns \['label', 'text'\]",
    ),
    "pair longer than a row": (
        lambda w, p: build_rows(seq2seq(pairs_file(p), length=4), ByteTokenizer()),
        "1 of 1 examples exceed 4 input or 4 target tokens.*long='truncate' or 'drop'",
    ),
    "no pair short enough": (
        lambda w, p: build_rows(seq2seq(pairs_file(p), length=4, long="drop"), ByteTokenizer()),
        "all 1 examples exceed 4 input or 4 target tokens$",
    ),
    "prompt truncated away": (
        lambda w, p: build_rows(seq2seq(pairs_file(p), length=1, long="truncate"), ByteTokenizer()),
        "removes the whole prompt of 1 of 1 examples",
    ),
    "soft prompt as long as the row": (
        lambda w, p: build_rows(seq2seq(pairs_file(p), length=3, virtual=(264, 265, 266)), ByteTokenizer()),
        "rows of 0 inputs and 3 targets hold no example",
    ),
    "pairs for a decoder": (
        lambda w, p: check_fits(TINY, {"objective": "seq2seq", "length": 8}, Fifty()),
        "objective 'seq2seq' needs a model of kind 'encoder_decoder'; 'gpt2' is of kind 'decoder'",
    ),
    "virtual token outside the prompt": (prompt_id_outside, "token id 53.*vocabulary of 5[03]"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case, params, tmp_path):
    call, message = CASES[case]
    message = message.replace("|||", r"\|\|\|")
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        call(params, tmp_path)
    assert len(str(caught.value).splitlines()[0]) > 20
