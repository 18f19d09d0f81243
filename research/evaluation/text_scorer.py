"""An encoder that gives an answer one number, trained on pairs of answers: as a judge, or against what people reject.

B batch · T length
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.core.types import Params
from research.data import load_tokenizer
from research.data.length_batches import bucket, length_batches
from research.data.packing import pad_batch
from research.interop import load_pretrained, save_pretrained
from research.models import Model, build
from research.recipes.classify import scores

WIDTHS = (32, 64, 128, 192, 256, 384, 512)
FACTS = "scorer.json"

Row = tuple[str, str]  # what was asked, what was answered
Coded = tuple[list[int], list[int]]  # token ids, token types


@dataclass(frozen=True)
class TextScorer:
    """Rows of (question, answer) -> [n] scores; the higher, the likelier people prefer the answer.

    Attributes:
      length: the most tokens of a row. facts: `middle`, the mean score of the answers it learned from, and what is
        known of how right it is.
    """

    model: Model
    params: Params
    tokenizer: Any
    length: int
    facts: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> "TextScorer":
        """A folder that `save` wrote.

        Raises:
          ValueError: it holds no scorer.
        """
        path = Path(folder) / FACTS
        if not path.is_file():
            raise ValueError(f"{folder} holds no text scorer: {FACTS} is missing; experiments.pair_scorer makes one")
        facts = json.loads(path.read_text(encoding="utf-8"))
        config, params, _ = load_pretrained(folder, head="scalar")
        return cls(build(config), params, load_tokenizer(folder), facts["length"], facts)

    @classmethod
    def pretrained(cls, folder: str | Path) -> "TextScorer":
        """Any classifier of one label, such as a published cross-encoder, which scores (question, passage).

        Raises:
          ValueError: a classifier of more labels, or a model without a classifier.
        """
        config, params, extras = load_pretrained(folder, head="scalar")
        if extras.fresh:
            raise ValueError(f"{folder} holds no classifier of one label; it lacks {sorted(extras.fresh)}")
        return cls(build(config), params, load_tokenizer(folder), config.max_length, {})

    def save(self, folder: str | Path) -> None:
        """Writes a Hugging Face folder (a classifier of one label) with the facts beside it."""
        save_pretrained(folder, self.model.config, self.params, tokenizer=self.tokenizer)
        facts = {**self.facts, "length": self.length}
        (Path(folder) / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def __call__(self, rows: Sequence[Row], *, batch_size: int = 32) -> np.ndarray:
        coded = [encode(self.tokenizer, row, self.length) for row in rows]
        found = np.zeros(len(rows))
        for chosen in length_batches([len(ids) for ids, _ in coded], batch_size, None):
            some = [coded[i] for i in chosen]
            # Full batches only, so that there is one program for each width.
            batch = pad(some + [some[0]] * (batch_size - len(some)), self.length, self.model.config.n_token_types)
            found[chosen] = np.asarray(scores(self.model, self.params, batch))[: len(chosen)]
        return found

    def probabilities(self, rows: Sequence[Row]) -> np.ndarray:
        """σ(middle − score): how much an answer looks like those that people reject, 0.5 halfway."""
        return 1 / (1 + np.exp(self(rows) - self.facts["middle"]))

    @property
    def described(self) -> str:
        """How far it can be trusted, in one sentence."""
        return str(self.facts["described"])


def encode(tokenizer: Any, row: Row, length: int) -> Coded:
    """Begin token, question, end token, answer, end token; where that is too long, the longer one is cut."""
    question, answer = (tokenizer.encode(text.strip()) for text in row)
    room = length - 3
    question = question[: max(room // 2, room - len(answer))]
    answer = answer[: room - len(question)]
    ids = [tokenizer.bos_id, *question, tokenizer.eos_id, *answer, tokenizer.eos_id]
    return ids, [0] * (len(question) + 2) + [1] * (len(answer) + 1)


def pad(rows: Sequence[Coded], length: int, n_token_types: int) -> dict[str, np.ndarray]:
    """Encoded rows as one batch; token types only where the model knows two."""
    width = bucket(max(len(ids) for ids, _ in rows), sorted({min(w, length) for w in (*WIDTHS, length)}))
    batch = pad_batch([ids for ids, _ in rows], width)
    if n_token_types > 1:
        batch["token_types"] = pad_batch([types for _, types in rows], width)["tokens"]
    return batch
