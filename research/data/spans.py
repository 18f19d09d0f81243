"""T5 span corruption, one function per step. See *Exploring the Limits of Transfer Learning*, arXiv:1910.10683.

A mask [n] says which tokens are noise; sentinels stand for the runs of noise in the inputs, and for the runs between
them in the targets.
"""

from collections.abc import Sequence

import numpy as np


def noise_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """(noise tokens, noise spans) in a text of `length` tokens: at least one of each, never all tokens."""
    noise = min(max(round(length * density), 1), max(length - 1, 0))
    spans = min(max(round(noise / mean_span), 1), noise, length - noise) if noise else 0
    return noise, spans


def corrupted_lengths(
    length: int, density: float, mean_span: float, extra_inputs: int = 1, extra_targets: int = 1, ends: int = 1
) -> tuple[int, int]:
    """(inputs, targets) that `length` raw tokens become: `extra_*` tokens per span, and `ends` end tokens on each."""
    noise, spans = noise_counts(length, density, mean_span)
    return length - noise + extra_inputs * spans + ends, noise + extra_targets * spans + ends


def random_spans_helper(
    inputs_length: int, density: float, mean_span: float, extra_inputs: int = 1, extra_targets: int = 1
) -> tuple[int, int]:
    """(raw tokens, targets length) such that corrupting that many tokens just fills `inputs_length`.

    Both lengths count one end token. With density 0.5 the targets are kept no longer than the inputs.
    """

    def lengths(n: int) -> tuple[int, int]:
        return corrupted_lengths(n, density, mean_span, extra_inputs, extra_targets)

    tokens = inputs_length - 1
    if tokens < 1 or lengths(tokens)[0] > inputs_length:
        raise ValueError(f"inputs_length {inputs_length} leaves no room for a text and its end token")
    while lengths(tokens + 1)[0] <= inputs_length:
        tokens += 1
    targets = lengths(tokens)[1]
    if density == 0.5 and targets > inputs_length:
        tokens, targets = tokens - 1, targets - 1
    return tokens, targets


def _composition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`parts` positive integers that sum to `total`, uniform over all such sequences."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def random_spans_noise_mask(length: int, density: float, mean_span: float, rng: np.random.Generator) -> np.ndarray:
    """Boolean [length]: noise in spans of random length, beginning with a run that stays.

    Density 0 (or fewer than two tokens) gives no noise.
    """
    if density == 0 or length < 2:
        return np.zeros(length, bool)
    noise, spans = noise_counts(length, density, mean_span)
    kept_runs = _composition(length - noise, spans, rng)
    noise_runs = _composition(noise, spans, rng)
    runs = np.stack([kept_runs, noise_runs], axis=1).reshape(-1)
    return np.repeat(np.tile([False, True], spans), runs)


def span_starts(mask: np.ndarray) -> np.ndarray:
    """Boolean [n]: first token of each run of noise."""
    return mask & ~np.concatenate([[False], mask[:-1]])


def noise_span_to_unique_sentinel(tokens: np.ndarray, mask: np.ndarray, sentinels: Sequence[int]) -> np.ndarray:
    """Each run of noise becomes the next of `sentinels`; raises ValueError when they run out."""
    tokens, mask = np.asarray(tokens), np.asarray(mask, bool)
    starts = span_starts(mask)
    count = int(starts.sum())
    if count > len(sentinels):
        raise ValueError(f"{count} noise spans but only {len(sentinels)} sentinel tokens")
    out = tokens.copy()
    out[starts] = np.asarray(sentinels, tokens.dtype)[:count]
    return out[~mask | starts]


def nonnoise_span_to_unique_sentinel(tokens: np.ndarray, mask: np.ndarray, sentinels: Sequence[int]) -> np.ndarray:
    """Each run that stays becomes the next sentinel: the targets of span corruption."""
    return noise_span_to_unique_sentinel(tokens, ~np.asarray(mask, bool), sentinels)


def noise_span_to_sentinel(tokens: np.ndarray, mask: np.ndarray, sentinel: int) -> np.ndarray:
    """Each run of noise becomes the same sentinel."""
    mask = np.asarray(mask, bool)
    starts = span_starts(mask)
    return np.where(starts, sentinel, tokens)[~mask | starts]


def nonnoise_span_to_sentinel(tokens: np.ndarray, mask: np.ndarray, sentinel: int) -> np.ndarray:
    """Each run that stays becomes the same sentinel."""
    return noise_span_to_sentinel(tokens, ~np.asarray(mask, bool), sentinel)


def noise_token_to_sentinel(tokens: np.ndarray, mask: np.ndarray, sentinel: int) -> np.ndarray:
    """Each noise token becomes the sentinel; the length stays (MASS style)."""
    return np.where(np.asarray(mask, bool), sentinel, tokens)


def drop_noise(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tokens that stay."""
    return np.asarray(tokens)[~np.asarray(mask, bool)]


def drop_nonnoise(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The noise tokens."""
    return np.asarray(tokens)[np.asarray(mask, bool)]


def t5_sentinels(vocab_size: int, count: int = 100) -> list[int]:
    """T5's sentinel ids, counting down from the end of the vocabulary."""
    return list(range(vocab_size - 1, vocab_size - 1 - count, -1))


def tokenizer_sentinels(tokenizer) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, ... of a tokenizer; raises ValueError if it has none."""
    found: list[int] = []
    while (i := tokenizer.id_of(f"<extra_id_{len(found)}>")) is not None:
        found.append(i)
    if not found:
        raise ValueError("this tokenizer has no sentinel tokens <extra_id_0>, ...; train it with sentinels=100")
    return found
