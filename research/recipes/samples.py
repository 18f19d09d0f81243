"""Texts to distil on that no file holds: the teacher's (sequence-level), or the student's own (on-policy).

B batch · T length
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from research.core.types import Params
from research.decoding import beam_search
from research.objectives import require
from research.recipes.rollouts import Writer, rows


def teacher_writes(
    writer: Writer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """The teacher's answers to all prompts as a batch of `rollouts.rows`, for the usual loss.

    See *Sequence-Level Knowledge Distillation*, https://arxiv.org/abs/1606.07947, which takes what beam search finds.

    Args:
      beams: of the search; 0: none, each token is chosen at `temperature` (0: the most probable one).
      batch_size: prompts answered at a time.

    Raises:
      ValueError: a prompt that is empty or too long, or beams with a temperature, which they would not heed.
    """
    writer.check(prompts)
    if beams and temperature:
        raise ValueError(f"beam search is deterministic; given beams {beams} and temperature {temperature}")
    found = []
    for start in range(0, len(prompts), batch_size):
        # Full batches only, so that there is one program.
        some = prompts[start : start + batch_size]
        asked = [some[i % len(some)] for i in range(batch_size)]
        if beams:
            made = beam_search(
                writer.model,
                params,
                asked,
                beams=beams,
                max_new_tokens=writer.new_tokens,
                stop_tokens=writer.stops,
                tokenizer=writer.tokenizer,
            )
            answers = [made.ids(i) for i in range(batch_size)]
            batch = rows(writer.model, asked, answers, writer.prompt_length, writer.new_tokens)
        else:
            key = jax.random.fold_in(jax.random.key(seed), start)
            batch = writer(params, asked, key, temperature=temperature).batch
        found.append(batch)
    return {name: np.concatenate([batch[name] for batch in found])[: len(prompts)] for name in found[0]}


@dataclass(frozen=True)
class OnPolicy:
    """Batches of which a share λ is written by the student as it is, and the others are those of the data.

    See *On-Policy Distillation of Language Models* (GKD), https://arxiv.org/abs/2306.13649, algorithm 1. `sampled` [B]
    is 1 in what the student wrote: `recipes.distill` takes no cross-entropy there.

    Attributes:
      writer: of the student. prompts: what it answers. data: step -> a batch of the data.
      share: λ. batch_size: answers of a batch. temperature: at which they are sampled.

    Raises:
      ValueError: λ outside [0, 1], a prompt that is empty or too long.
    """

    writer: Writer
    prompts: Sequence[Sequence[int]]
    data: Callable[[int], Mapping[str, np.ndarray]]
    share: float
    batch_size: int
    seed: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require.share("share", self.share)
        require.positive("batch_size", self.batch_size)
        self.writer.check(self.prompts)

    def batch(self, params: Params, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, a function of the student's weights, the seed and the step alone."""
        rng = np.random.default_rng((self.seed, step))
        if rng.random() >= self.share:
            batch = dict(self.data(step))
            return batch | {"sampled": np.zeros(len(batch["loss_mask"]), np.int32)}
        chosen = rng.choice(len(self.prompts), self.batch_size, replace=self.batch_size > len(self.prompts))
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        written = self.writer(params, [self.prompts[i] for i in chosen], key, temperature=self.temperature)
        return written.batch | {"sampled": np.ones(self.batch_size, np.int32)}
