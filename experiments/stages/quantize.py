"""Stage 13: the pre-trained model in fewer bits: what it forgets, how small it gets, how fast it reads and writes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.speed import speed
from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research import weights
from research.core import tree
from research.core.types import Params
from research.decoding import prepare
from research.evaluation.likelihood import score
from research.models import Model, build


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{form: bits per byte of held-out documents, nats per token, bytes, tokens per second of processor time}."""
    del folder
    settings = config["quantize"]
    ruler = Ruler.of(settings, inputs)
    model = learning.model_of(config, ruler.pieces)
    params = learning.load_weights(inputs["pretrain"], model)
    forms = {}
    for name, form in settings["forms"].items():
        reader = build(model.config, policy=form["policy"], unroll=True)
        forms[name] = ruler(reader, weights.quantize(params, form["recipe"]))
    return {"forms": forms, "documents": len(ruler.texts), "prompt": len(ruler.prompt)}


@dataclass(frozen=True)
class Ruler:
    """Measures forms of one model on the same texts."""

    pieces: Any
    texts: Sequence[str]
    prompt: Sequence[int]
    new_tokens: int

    @classmethod
    def of(cls, settings: Mapping[str, Any], inputs: Mapping[str, Done]) -> "Ruler":
        """By the config's section "quantize", on documents spread over all that are held out."""
        pieces = tokenizer.load(inputs["tokenizer"])
        texts = [d["text"] for d in read_lines(inputs["documents"].folder / "held_out.jsonl")]
        count = min(settings["documents"], len(texts))
        texts = [texts[i * len(texts) // count] for i in range(count)]
        prompt = pieces.encode("\n".join(texts), bos=True)[: settings["prompt"]]
        return cls(pieces, texts, prompt, settings["new_tokens"])

    def __call__(self, model: Model, params: Params) -> dict[str, float]:
        """Quality, bytes and speed of weights in any form."""
        packed = prepare(model, params)
        read = score(model, packed, self.pieces, self.texts)
        return {
            "bits_per_byte": read.bits_per_byte,
            "nats_per_token": float(read.nats.sum() / read.tokens.sum()),
            "bytes": tree.nbytes(packed),
            **speed(model, packed, [self.prompt], self.new_tokens, clock=time.process_time),
        }


def rows(forms: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, most bytes at rest first."""
    found = sorted(forms.items(), key=lambda item: -at_rest(item[1]))
    header = ["weights", "bits per byte", "nats per token", "bytes", "at rest", "read a CPU second", "written"]
    out = []
    for name, form in found:
        quality = [f"{form[what]:.4f}" for what in ("bits_per_byte", "nats_per_token")]
        sizes = [f"{form['bytes']:,}", f"{at_rest(form):,}"]
        out.append([name, *quality, *sizes, *(f"{form[what]:,.0f}" for what in ("prefill", "decode"))])
    return header, out


def at_rest(form: Mapping[str, float]) -> float:
    """Bytes in a file; fewer than in use where masked kernels leave out their zeros."""
    return form.get("at_rest", form["bytes"])


STAGE = Stage(
    name="quantize",
    title="Fewer bits: this model in bf16, int8 and NF4",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "quantize"),
)
