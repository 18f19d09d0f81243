"""What a call of `generate` gives back."""

from dataclasses import dataclass

import numpy as np

REASONS = ("running", "length", "stop token", "stop string")


@dataclass(frozen=True)
class Generation:
    """The new tokens of each row and what is known about them.

    B rows · N most new tokens · A alternatives

    tokens: `[B, N]` int32, `pad` after a row's end. A stop token that ended a row is its last token.
    lengths: `[B]` new tokens of each row. reasons: why it ended: "length", "stop token" or "stop string".
    logprobs: `[B, N]` log-probability of each token under the model's own distribution (log softmax of the raw
        logits, whatever the sampling), 0 after the end; None if not asked for.
    processed_logprobs: the same under the distribution that was sampled from, after all knobs.
    alternatives, alternative_logprobs: `[B, N, A]` the most probable tokens of the raw distribution at each step.
    near_ties: `[B]` steps whose best two choices (after knobs and noise) were nearer than the tolerance: there
        rounding, so the size of the batch, may decide. Equal seeds give equal text where it is 0.
    texts: the decoded rows without stop token and stop string, if a tokenizer was given.
    scores: `[B]` for beam search: sum of log-probabilities / length^penalty.
    rounds, examined, accepted: `[B]` for speculative decoding: passes of the target after the prompt, drafted tokens it
        looked at (those behind the first refusal are not looked at), and those it kept.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    reasons: list[str]
    prompts: list[list[int]]
    near_ties: np.ndarray | None = None
    logprobs: np.ndarray | None = None
    processed_logprobs: np.ndarray | None = None
    alternatives: np.ndarray | None = None
    alternative_logprobs: np.ndarray | None = None
    texts: list[str] | None = None
    scores: np.ndarray | None = None
    rounds: np.ndarray | None = None
    examined: np.ndarray | None = None
    accepted: np.ndarray | None = None

    def ids(self, row: int) -> list[int]:
        """The new tokens of one row, a stop token included."""
        return [int(i) for i in self.tokens[row, : self.lengths[row]]]

    @property
    def acceptance_rate(self) -> float | None:
        """Share of examined draft tokens that the target kept, over all rows; None without a draft."""
        if self.examined is None or self.accepted is None:
            return None
        return float(self.accepted.sum()) / max(1, int(self.examined.sum()))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Piece:
    """What one row has produced since the last callback: its new tokens and, with a tokenizer, its new certain text."""

    row: int
    tokens: list[int]
    logprobs: list[float] | None
    text: str
    ended: bool
