"""Stage 13: the pre-trained model in fewer bits: what it forgets, how small it gets, how fast it reads and writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.speed import speed
from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research import weights
from research.core import tree
from research.decoding import prepare
from research.evaluation.likelihood import score
from research.models import build


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{form: bits per byte of held-out documents, nats per token, bytes, tokens per second}."""
    del folder
    settings = config["quantize"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    params = learning.load_weights(inputs["pretrain"], model)
    texts = [d["text"] for d in read_lines(inputs["documents"].folder / "held_out.jsonl")]
    count = min(settings["documents"], len(texts))
    texts = [texts[i * len(texts) // count] for i in range(count)]
    prompt = pieces.encode("\n".join(texts), bos=True)[: settings["prompt"]]
    forms = {}
    for name, form in settings["forms"].items():
        reader = build(model.config, policy=form["policy"], unroll=True)
        packed = prepare(reader, weights.quantize(params, form["recipe"]))
        read = score(reader, packed, pieces, texts)
        forms[name] = {
            "bits_per_byte": read.bits_per_byte,
            "nats_per_token": float(read.nats.sum() / read.tokens.sum()),
            "bytes": tree.nbytes(packed),
            **speed(reader, packed, [prompt], settings["new_tokens"]),
        }
    return {"forms": forms, "documents": count, "prompt": len(prompt)}


def rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, most bytes first."""
    found = sorted(result["forms"].items(), key=lambda item: -item[1]["bytes"])
    header = ["weights", "bits per byte", "nats per token", "bytes", "read, tokens/s", "written, tokens/s"]
    return header, [
        [name, f"{form['bits_per_byte']:.4f}", f"{form['nats_per_token']:.4f}", f"{form['bytes']:,}"]
        + [f"{form[what]:,.0f}" for what in ("prefill", "decode")]
        for name, form in found
    ]


STAGE = Stage(
    name="quantize",
    title="Fewer bits: this model in bf16, int8 and NF4",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "quantize"),
)
