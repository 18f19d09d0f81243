"""What a policy writes behind prompts, as rows to learn from, and what a reward says about it.

B answers · T length · S source length · N most new tokens
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.core.types import Array, Params
from research.data.packing import pad_batch
from research.decoding import Sampling, generate
from research.models import Model

Reward = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""(texts of the prompts, texts of the answers) -> one number each; text, so it may have a tokenizer of its own."""


@dataclass(frozen=True)
class Rollout:
    """Answers to prompts.

    Attributes:
      prompts, answers: the texts. batch: see `rows`. lengths: [B] tokens of the answers, an end token included.
      ended: [B], whether the policy ended by itself. sampled: [B, N] log-probabilities that the sampler had.
    """

    prompts: list[str]
    answers: list[str]
    batch: dict[str, np.ndarray]
    lengths: np.ndarray
    ended: np.ndarray
    sampled: np.ndarray


@dataclass(frozen=True)
class Writer:
    """How answers are written: every shape is fixed, so one program serves the whole run.

    Attributes:
      prompt_length, new_tokens: the most tokens of a prompt and of an answer. stops: tokens that end an answer.
    """

    model: Model
    tokenizer: Any
    prompt_length: int
    new_tokens: int
    stops: tuple[int, ...]

    def __post_init__(self) -> None:
        room = self.model.config.max_length
        encoded = self.model.config.kind == "encoder_decoder"
        needed = max(self.prompt_length, self.new_tokens) if encoded else self.prompt_length + self.new_tokens - 1
        if needed > room:
            raise ValueError(
                f"prompts of {self.prompt_length} tokens with {self.new_tokens} new ones do not fit the model's "
                f"max_length {room}"
            )

    def check(self, prompts: Sequence[Sequence[int]]) -> None:
        """Refuses prompts that cannot be answered, before anything is computed.

        Raises:
          ValueError: no prompts, an empty one, or one that is too long; names it.
        """
        if not len(prompts):
            raise ValueError("there are no prompts")
        for i, ids in enumerate(prompts):
            if not 0 < len(ids) <= self.prompt_length:
                raise ValueError(f"prompt {i} has {len(ids)} tokens; expected 1 to prompt_length {self.prompt_length}")

    def __call__(
        self, params: Params, prompts: Sequence[Sequence[int]], key: Array, *, temperature: float = 1.0
    ) -> Rollout:
        """An answer to each prompt; temperature 0 is greedy. The text of row i depends on the key and i alone."""
        self.check(prompts)
        made = generate(
            self.model,
            params,
            prompts,
            max_new_tokens=self.new_tokens,
            sampling=Sampling(temperature=temperature),
            stop_tokens=self.stops,
            key=key,
            tokenizer=self.tokenizer,
            logprobs=False,
            processed_logprobs=True,
        )
        answers = [made.ids(row) for row in range(len(prompts))]
        assert made.texts is not None and made.processed_logprobs is not None
        return Rollout(
            [self.tokenizer.decode([t for t in ids if t != self.tokenizer.bos_id]) for ids in prompts],
            made.texts,
            rows(self.model, prompts, answers, self.prompt_length, self.new_tokens),
            made.lengths,
            np.array([reason != "length" for reason in made.reasons]),
            made.processed_logprobs,
        )


def rows(
    model: Model,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    prompt_length: int,
    new_tokens: int,
) -> dict[str, np.ndarray]:
    """Prompts and answers as a batch, padded on the right: `loss_mask` is 1 where `targets` is a token of the answer.

    A decoder reads both in one row, T = prompt_length + new_tokens − 1; an encoder reads the prompt (`inputs`), and its
    decoder the answer behind its start token, T = new_tokens. `places` [B, N] are the N = new_tokens positions from the
    first with a 1 on, whether the answer is so long or not.
    """
    batch: dict[str, np.ndarray] = {}
    if model.config.kind == "encoder_decoder":
        source = pad_batch(prompts, prompt_length)
        batch = {"inputs": source["tokens"], "input_segment_ids": source["segment_ids"]}
        before, length = [[model.config.decoder_start_id]] * len(prompts), new_tokens
    else:
        before, length = [list(ids) for ids in prompts], prompt_length + new_tokens - 1
    whole = [[*first, *answer] for first, answer in zip(before, answers, strict=True)]
    read = pad_batch([ids[:-1] for ids in whole], length)
    batch |= {name: read[name] for name in ("tokens", "segment_ids")}
    batch["targets"] = pad_batch([ids[1:] for ids in whole], length)["tokens"]
    batch["loss_mask"] = np.zeros(batch["targets"].shape, np.float32)
    for row, (first, ids) in enumerate(zip(before, whole, strict=True)):
        batch["loss_mask"][row, len(first) - 1 : len(ids) - 1] = 1
    begins = np.array([len(first) - 1 for first in before], np.int32)
    return batch | {"places": begins[:, None] + np.arange(new_tokens, dtype=np.int32)}


def scored(reward: Reward, rollout: Rollout) -> np.ndarray:
    """The scores [B] of a rollout.

    Raises:
      ValueError: the reward raised, gave something else than one finite number for each answer; names the first answer
        with which that is so.
    """
    prompts, answers = rollout.prompts, rollout.answers
    try:
        found = reward(prompts, answers)
    except Exception as error:
        raise ValueError(f"the reward function raised {_named(error)} {_culprit(reward, prompts, answers)}") from error
    try:
        scores = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the reward function gave {found!r:.80}; expected one number for each answer") from None
    if scores.shape != (len(answers),):
        short = scores.ndim == 1 and scores.size < len(answers)
        missing = f"; the first without one is {_sample(prompts, answers, scores.size)}" if short else ""
        raise ValueError(
            f"the reward function gave scores of shape {scores.shape} for {len(answers)} answers; expected one number "
            f"for each{missing}"
        )
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"the reward function gave {scores[bad]} for {_sample(prompts, answers, bad)}")
    return scores.astype(np.float32)


def _culprit(reward: Reward, prompts: Sequence[str], answers: Sequence[str]) -> str:
    """The first answer on which the reward raises by itself."""
    for i in range(len(answers)):
        try:
            reward(prompts[i : i + 1], answers[i : i + 1])
        except Exception:
            return f"on {_sample(prompts, answers, i)}"
    return f"on all {len(answers)} answers together, on none of them alone"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _sample(prompts: Sequence[str], answers: Sequence[str], i: int) -> str:
    return f"answer {i}, {answers[i]!r:.80} to {prompts[i]!r:.80}"
