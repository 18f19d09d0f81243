"""BERTScore: how well the tokens of two texts match in meaning, as an encoder sees them.

Texts of like length are encoded together in a few compiled shapes; each pair is then matched without padding. See
*BERTScore: Evaluating Text Generation with BERT*, Zhang et al., https://arxiv.org/abs/1904.09675; the numbers are those
of the `bert-score` package.

B batch · T length · D width
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array, Batch, Params
from research.data.length_batches import bucket, length_batches
from research.data.packing import pad_batch
from research.models import Model

from .text_metrics import check_pairs

WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # what texts are padded to: few shapes, little padding
CHUNK = 1024  # pairs whose hidden states are held at a time

Weigh = Callable[[Sequence[int]], np.ndarray]
Baseline = tuple[float, float, float]


class BertScore(NamedTuple):
    """One entry per candidate, all [n]; `bootstrap(score.f1)` gives a mean with its interval."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def bertscore(
    model: Model,
    params: Params,
    tokenizer: Any,
    candidates: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    layer: int | None = None,
    idf: bool | Sequence[str] = False,
    baseline: Baseline | str | Path | None = None,
    length: int | None = None,
    batch_size: int = 32,
) -> BertScore:
    """P = Σ_i w_i max_j cos(x_i, y_j) / Σ_i w_i over a candidate's tokens x, R the same over the reference's y.

    F1 is their harmonic mean. Cosines below 0 count 0, and so does an empty text. Of several references the best P, R
    and F1 count, each for itself. Tokens beyond `length` (default: what the model takes) are cut off.

    Args:
      references: one text per candidate, or a list of at least one.
      layer: whose output the cosines are of, 0 the embeddings; default: the last.
      idf: w is 1, or ln((n + 1) / (texts with the token + 1)) over the n references (True) or over these texts.
        Begin and end token count only with idf, and nothing where all texts have them.
      baseline: b of P, R and F1, or a file of them (`read_baseline`); scores become (x − b) / (1 − b).

    Raises:
      ValueError: a model that is no encoder, a tokenizer without begin or end token, no pairs, a candidate without
        reference, or no such layer.
    """
    layer = _layer(model, layer)
    groups = _groups(candidates, references)
    length = min(length or model.config.max_length, model.config.max_length)
    if tokenizer.bos_id is None or tokenizer.eos_id is None or length < 3:
        raise ValueError(
            "BERTScore frames texts in the tokenizer's begin and end token; "
            f"it has {tokenizer.bos_id} and {tokenizer.eos_id}, and {length} tokens to put them in"
        )
    rescale = read_baseline(baseline, layer) if isinstance(baseline, str | Path) else baseline or (0.0, 0.0, 0.0)
    coded: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in coded:
            coded[text] = _framed(text, tokenizer, length)
        return coded[text]

    pairs = [(ids(c), ids(r)) for c, group in zip(candidates, groups, strict=True) for r in group]
    counted = [r for _, r in pairs] if idf is True else [ids(text) for text in idf or ()]
    weigh = _inverse_frequency(counted) if idf else _plain(tokenizer)
    found = np.concatenate(
        [
            _scored(model, params, layer, pairs[start : start + CHUNK], weigh, batch_size)
            for start in range(0, len(pairs), CHUNK)
        ]
    )
    ends = np.cumsum([len(group) for group in groups])[:-1]
    best = np.stack([part.max(axis=0) for part in np.split(found, ends)])
    b = np.asarray(rescale, np.float64)
    return BertScore(*((best - b) / (1 - b)).T)


def read_baseline(path: str | Path, layer: int) -> Baseline:
    """(P, R, F1) of one layer from a file of `bert-score`: lines LAYER,P,R,F below their header, commas or tabs.

    Raises:
      ValueError: another header, a line without numbers, or no such layer; names file and line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))
    if not rows or [name.strip() for name in rows[0]] != ["LAYER", "P", "R", "F"]:
        raise ValueError(f"{path}:1: expected the header LAYER,P,R,F of a baseline file, got {lines[:1]}")
    layers: dict[int, Baseline] = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            at, p, r, f = row
            layers[int(at)] = (float(p), float(r), float(f))
        except ValueError:
            raise ValueError(f"{path}:{number}: expected a layer and three numbers, got {row}") from None
    if layer not in layers:
        raise ValueError(f"{path} has no baseline of layer {layer}; it has {sorted(layers)}")
    return layers[layer]


def _scored(
    model: Model,
    params: Params,
    layer: int,
    pairs: Sequence[tuple[list[int], list[int]]],
    weigh: Weigh,
    batch_size: int,
) -> np.ndarray:
    """[pairs, 3]: P, R and F1 of each."""
    texts = list({tuple(text): text for pair in pairs for text in pair}.values())
    seen = dict(zip(map(tuple, texts), _encoded(model, params, layer, texts, batch_size), strict=True))
    return np.array([_match(seen[tuple(c)], seen[tuple(r)], weigh(c), weigh(r)) for c, r in pairs])


def _match(x: np.ndarray, y: np.ndarray, wx: np.ndarray, wy: np.ndarray) -> tuple[float, float, float]:
    """P, R and F1 of unit vectors x [Tx, D] and y [Ty, D] with weights; 0 for a text in which nothing counts."""
    if len(x) <= 2 or len(y) <= 2 or not wx.sum() or not wy.sum():
        return 0.0, 0.0, 0.0
    # The package compares with padding too, whose cosine it sets to 0: a token that is like none counts 0, not less.
    cosine = np.maximum(x @ y.T, 0)
    p, r = float(cosine.max(1) @ wx / wx.sum()), float(cosine.max(0) @ wy / wy.sum())
    return p, r, 2 * p * r / (p + r) if p + r else 0.0


def _encoded(
    model: Model, params: Params, layer: int, texts: Sequence[list[int]], batch_size: int
) -> Iterator[np.ndarray]:
    """Unit vectors [T, D] of every text, in order."""
    # A scan compiles faster; without one the layers above the chosen one are never computed.
    last = model.config.n_layers
    model = replace(model, unroll=last if layer < last else 1)
    chosen = length_batches([len(text) for text in texts], batch_size, None)
    edges = sorted({min(width, model.config.max_length) for width in (*WIDTHS, model.config.max_length)})
    states = []
    for some in chosen:
        width = bucket(max(len(texts[i]) for i in some), edges)
        # A batch that is not full gets empty rows, so that its shape is that of the others.
        rows = [texts[i] for i in some] + [[]] * (batch_size - len(some))
        states.append(_unit(model, layer, params, pad_batch(rows, width)))
    found: dict[int, np.ndarray] = {}
    for some, batch in zip(chosen, states, strict=True):
        found |= {i: row[: len(texts[i])] for i, row in zip(some, np.asarray(batch), strict=False)}
    return (found[i] for i in range(len(texts)))


@partial(jax.jit, static_argnums=(0, 1))
def _unit(model: Model, layer: int, params: Params, batch: Batch) -> Array:
    """A layer's output [B, T, D], every token's vector of length 1."""
    states = model.apply(params, batch, hidden_states=True).hidden_states
    assert states is not None
    state = states[layer].astype(jnp.float32)
    return state / jnp.maximum(jnp.linalg.norm(state, axis=-1, keepdims=True), 1e-12)


def _framed(text: str, tokenizer: Any, length: int) -> list[int]:
    """Begin token, the text's tokens, end token."""
    text = text.strip()
    ids = tokenizer.encode(text)[: length - 2] if text else []
    return [tokenizer.bos_id, *ids, tokenizer.eos_id]


def _plain(tokenizer: Any) -> Weigh:
    ends = (tokenizer.bos_id, tokenizer.eos_id)
    return lambda ids: ~np.isin(ids, ends) * 1.0


def _inverse_frequency(texts: Sequence[list[int]]) -> Weigh:
    counts = Counter(token for text in texts for token in set(text))
    return lambda ids: np.array([math.log((len(texts) + 1) / (counts[token] + 1)) for token in ids])


def _groups(candidates: Sequence[str], references: Sequence[Any]) -> list[list[str]]:
    """Every candidate's references."""
    check_pairs(candidates, references)
    groups = [[given] if isinstance(given, str) else list(given) for given in references]
    lone = [i for i, group in enumerate(groups) if not group]
    if lone:
        raise ValueError(f"candidate {lone[0]} has no reference to be compared with")
    return groups


def _layer(model: Model, layer: int | None) -> int:
    config = model.config
    if config.kind != "encoder":
        raise ValueError(f"BERTScore compares what an encoder sees; this model is a {config.kind}")
    layer = config.n_layers if layer is None else layer
    if not 0 <= layer <= config.n_layers:
        raise ValueError(f"layer {layer} does not exist: the model has 0 (embeddings) to {config.n_layers}")
    return layer
