"""A batch to look at before training: documents in colours, predicted tokens bold, padding counted."""

from collections.abc import Mapping

import numpy as np
from rich.text import Text

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def render(batch: Mapping[str, np.ndarray], tokenizer, *, rows: int = 2, max_tokens: int = 400) -> Text:
    """The first rows of a batch as coloured text.

    One colour per packed document; a token that is predicted is bold and underlined, the others are dim. Where the
    target is another token than the one shown (masked LM), it follows as `[piece>target]`. Encoder inputs come first.
    Of rows of answers side by side, [B, 2, T], both are shown.
    """
    if np.ndim(batch["tokens"]) == 3:
        return _side_by_side(batch, tokenizer, rows, max_tokens)
    text = Text()
    for i in range(min(rows, len(batch["tokens"]))):
        text.append(f"row {i}", style="bold")
        supervised = int(np.sum(batch["loss_mask"][i] > 0)) if "loss_mask" in batch else 0
        text.append(f"  {_summary(batch, i)}, {supervised} tokens predicted\n")
        if "inputs" in batch:
            text.append("inputs ")
            segments = batch.get("input_segment_ids", np.ones_like(batch["inputs"]))[i]
            _line(text, batch["inputs"][i], segments, None, None, tokenizer, max_tokens)
            text.append("target ")
            _line(
                text, batch["targets"][i], _segments(batch, i), batch["loss_mask"][i] > 0, None, tokenizer, max_tokens
            )
        else:
            predicted, targets = _predicted(batch, i)
            _line(text, batch["tokens"][i], _segments(batch, i), predicted, targets, tokenizer, max_tokens)
    return text


def _side_by_side(batch, tokenizer, rows: int, max_tokens: int) -> Text:
    """Both answers of the first rows, and what is known of them."""
    text = Text()
    tokens = {name: array for name, array in batch.items() if np.ndim(array) == 3}
    for p in range(min(rows, len(batch["tokens"]))):
        if "desirable" in batch:
            what, names = "row", ["desirable" if batch["desirable"][p] else "undesirable", "answer to another"]
        else:
            sure = float(batch["preferred"][p]) if "preferred" in batch else 1.0
            what, names = "pair", [f"chosen ({sure:.2f})", f"rejected ({1 - sure:.2f})"]
        for i, name in enumerate(names):
            text.append(f"{what} {p}, {name}: ", style="bold")
            text.append(render({k: v[p, i : i + 1] for k, v in tokens.items()}, tokenizer, max_tokens=max_tokens))
    return text


def _segments(batch, i: int) -> np.ndarray:
    return batch.get("segment_ids", np.ones_like(batch["tokens"]))[i]


def _summary(batch, i: int) -> str:
    segments = _segments(batch, i)
    count = int(segments.max(initial=0))
    return f"{len(segments)} tokens, {count} document{'s' * (count != 1)}, {int((segments == 0).sum())} padding"


def _predicted(batch, i: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which tokens shown are predicted, and their targets if these are others (masked LM)."""
    if "loss_mask" not in batch:
        return None, None
    tokens, targets, mask = batch["tokens"][i], batch["targets"][i], batch["loss_mask"][i] > 0
    at = np.flatnonzero(mask[:-1])
    if (tokens[at + 1] == targets[at]).all():
        # Next-token targets: what position t predicts is shown at t + 1.
        return np.concatenate([[False], mask[:-1]]), None
    return mask, targets


def _line(text: Text, ids, segments, predicted, targets, tokenizer, max_tokens: int) -> None:
    padding = 0
    for t, piece in enumerate(_pieces(tokenizer, ids[:max_tokens])):
        if segments[t] == 0:
            padding += 1
            continue
        bold = predicted is not None and predicted[t]
        colour = _COLOURS[(int(segments[t]) - 1) % len(_COLOURS)]
        style = f"bold underline {colour}" if bold else (colour if predicted is None else f"dim {colour}")
        shown = _visible(piece)
        if targets is not None and bold:
            shown = f"[{shown}>{_visible(tokenizer.pieces([targets[t]])[0])}]"
        text.append(shown, style=style)
    rest = len(ids) - max_tokens
    text.append(f" (padding x {padding})" if padding else "", style="dim")
    text.append(f" ... {rest} more" if rest > 0 else "", style="dim")
    text.append("\n")


def _pieces(tokenizer, ids) -> list[str]:
    """Pieces of ids; those behind the vocabulary are a soft prompt's, which no tokenizer knows."""
    known = iter(tokenizer.pieces([i for i in ids if i < tokenizer.vocab_size]))
    return [next(known) if i < tokenizer.vocab_size else f"<virtual {i - tokenizer.vocab_size}>" for i in ids]


def _visible(piece: str) -> str:
    """A piece as read: spaces as spaces, line breaks as a sign."""
    return piece.replace("\u2581", " ").replace("\u0120", " ").replace("\u010a", "\u23ce").replace("\n", "\u23ce")
