"""BART's ways to damage a text, each a function of ids and a generator. See *BART*, arXiv:1910.13461."""

import numpy as np


def sentence_end_table(tokenizer) -> np.ndarray:
    """Boolean [V]: pieces that end a sentence (they end in . ! ? or a newline)."""
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    # Byte-level pieces write a newline as U+010A, byte tokens as <0x0A>.
    ends = (".", "!", "?", "\n", "\u010a", "<0x0A>", "<0x2E>", "<0x21>", "<0x3F>")
    table = np.array([p.endswith(ends) for p in pieces], bool)
    table[sorted(tokenizer.special_ids)] = False
    return table


def permute_sentences(tokens: np.ndarray, end_table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sentences of `tokens` in random order; a rest without an end counts as one."""
    cuts = np.flatnonzero(end_table[tokens]) + 1
    sentences = np.split(tokens, cuts[cuts < len(tokens)])
    return np.concatenate([sentences[i] for i in rng.permutation(len(sentences))]) if len(sentences) > 1 else tokens


def mask_tokens(tokens: np.ndarray, rate: float, mask_id: int, rng: np.random.Generator) -> np.ndarray:
    """A share `rate` of the tokens becomes `mask_id`; the length stays."""
    return np.where(_some(len(tokens), rate, rng), mask_id, tokens).astype(tokens.dtype)


def delete_tokens(tokens: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """A share `rate` of the tokens disappears: the model must also find where."""
    return tokens[~_some(len(tokens), rate, rng)]


def _some(n: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    chosen = np.zeros(n, bool)
    chosen[rng.choice(n, round(rate * n), replace=False) if n else []] = True
    return chosen


def infill(
    tokens: np.ndarray, rate: float, mask_id: int, rng: np.random.Generator, *, mean_span: float = 3.0
) -> np.ndarray:
    """Text infilling: spans of Poisson(`mean_span`) length, together round(rate * n) tokens, become one mask each.

    A span of length 0 inserts a mask. The result is never longer than `tokens`: insertions stop there.
    """
    n = len(tokens)
    covered = round(rate * n)
    if covered == 0:
        return tokens
    spans, inserted = _span_lengths(covered, mean_span, rng)
    # Kept tokens fall into the gaps around the spans; inner gaps hold at least one, else two spans would be one.
    kept = n - covered
    while len(spans) > kept + 1:
        spans = np.concatenate([[spans[0] + spans[1]], spans[2:]])
    inner = len(spans) - 1
    spread = np.sort(rng.integers(0, kept - inner + 1, len(spans)))
    starts = spread + np.arange(len(spans)) + np.concatenate([[0], np.cumsum(spans)[:-1]])
    drop = np.zeros(n, bool)
    out = tokens.copy()
    for start, length in zip(starts, spans, strict=True):
        drop[start : start + length] = True
        out[start] = mask_id
    drop[starts] = False
    out = out[~drop]
    room = min(inserted, n - len(out))
    return np.insert(out, rng.integers(0, len(out) + 1, room), mask_id) if room else out


def _span_lengths(total: int, mean: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Positive Poisson lengths that sum to `total` (the last one cut), and how many zeros came up on the way."""
    lengths: list[int] = []
    zeros = 0
    while total > 0:
        drawn = min(int(rng.poisson(mean)), total)
        if drawn == 0:
            zeros += 1
            continue
        lengths.append(drawn)
        total -= drawn
    return rng.permutation(lengths), zeros
