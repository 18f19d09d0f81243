"""A model that is a table, with the interface of a real one: its distributions are known exactly."""

from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.dtypes import Policy
from research.ops import cache as caches


@dataclass(frozen=True)
class TableConfig:
    vocab_size: int
    max_length: int = 64
    kind: str = "decoder"
    head: str = "lm"
    positions: str = "learned"
    decoder_start_id: int = -1


@dataclass(frozen=True)
class Table:
    """Logits of the next token are `params["rows/kernel"][sum of the row's tokens so far modulo its size]`.

    The sum comes out of the cache's segments and layers, so a slot that is lost, stale or padding changes the text.
    """

    config: TableConfig
    policy: Policy = Policy()

    def start(self, params, batch, length):
        return caches.empty(batch["tokens"].shape[0], length, 1, 1, 1, jnp.float32)

    def apply(self, params, batch, *, cache=None):
        tokens, segments, positions = batch["tokens"], batch["segment_ids"], batch["positions"]
        where = caches.slots(cache, tokens.shape[1])
        moved = caches.advance(cache, positions, segments)
        value = tokens[..., None, None].astype(jnp.float32)
        kv = caches.write(cache.layers[0], value, value, where)
        seen = (moved.positions[:, None] >= 0) & (moved.positions[:, None] <= positions[:, :, None])
        total = jnp.sum(jnp.where(seen, kv.k[:, None, :, 0, 0], 0), axis=-1).astype(jnp.int32)
        table = params["rows"]["kernel"]
        return SimpleNamespace(hidden=table[total % len(table)], cache=moved.replace(layers=(kv,)))

    def logits(self, params, hidden):
        return hidden


def table_logits(params, ids):
    """The reference: raw logits after a list of ids."""
    table = params["rows"]["kernel"]
    return table[sum(ids) % len(table)]


@pytest.fixture
def table():
    """(model, params): 11 tokens, 17 states."""
    kernel = 2 * jax.random.normal(jax.random.key(7), (17, 11))
    return Table(TableConfig(11)), {"rows": {"kernel": kernel}}


class Letters:
    """A tokenizer whose tokens are pieces of text; token 0 ends a text."""

    texts = ("", "a", "b", "c", " ", "ab", "bc", "ST", "OP", "\n", "é")
    eos_id = 0

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def raw_logits(table):
    """ids -> the model's raw logits for the next token, without cache or batch."""
    return lambda ids: np.asarray(table_logits(table[1], ids))


@pytest.fixture
def greedy(raw_logits):
    """(prompt, steps) -> greedy new tokens, one by one."""

    def run(prompt, steps):
        ids = list(prompt)
        for _ in range(steps):
            ids.append(int(np.argmax(raw_logits(ids))))
        return ids[len(prompt) :]

    return run


@pytest.fixture
def chain():
    """A (model, params) whose greedy text is given: `chain([3, 1, 4])` continues prompt [1] with 3, 1, 4, 0, 0, ..."""

    def make(text, size=64):
        kernel, total = np.zeros((size, 11), np.float32), 1
        for token in text:
            kernel[total % size, token] = 5.0
            total += token
        return Table(TableConfig(11)), {"rows": {"kernel": jnp.asarray(kernel)}}

    return make
