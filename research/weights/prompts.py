"""Soft prompts: P trained vectors that stand in front of the text as if they were words.

The embedding table becomes a `SoftPrompt`, which also answers for the virtual ids V .. V+P-1. Those ids are put into
the batch like any others (`research.data.virtual`), so masks, positions and the cache need to know nothing.

See *The Power of Scale for Parameter-Efficient Prompt Tuning*, https://arxiv.org/abs/2104.08691, and *GPT
Understands, Too* (P-tuning), https://arxiv.org/abs/2103.10385.

B batch · T length · P virtual tokens · D model width · V vocabulary
"""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core.types import Array, Params
from research.ops.dot import add_bias, dot
from research.ops.linear import dense, embed, fold, unembed
from research.weights import targets
from research.weights.wrapper import Wrapper, is_wrapper

TABLE = "embed/tokens/embedding"


@struct.dataclass
class SoftPrompt(Wrapper):
    """A table of V words with P trained rows behind it, ids V .. V+P-1; as an output layer it knows the V words only.

    Attributes:
      base: [V, D]. prompt: [P, D], or a `PromptEncoder` that computes it.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("prompt",)
    base: Any
    prompt: Any
    name: str = struct.field(pytree_node=False, default="default")


@struct.dataclass
class PromptEncoder:
    """P-tuning: the prompt is a three-layer perceptron of P trained vectors.

    Attributes:
      table: [P, D]. weights, biases: of the layers D -> M -> M -> D with ReLU between them.
    """

    table: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[P, D] of the prompt."""
        return tuple(self.table.shape)


@singledispatch
def rows(prompt: Any) -> Array:
    """The prompt [P, D] as an array."""
    return prompt


@rows.register
def _(prompt: PromptEncoder) -> Array:
    x = prompt.table
    for i, (w, b) in enumerate(zip(prompt.weights, prompt.biases, strict=True)):
        x = add_bias(dot(x, w), b)
        x = x if i == len(prompt.weights) - 1 else jax.nn.relu(x)
    return x


@embed.register
def _(w: SoftPrompt, ids: Array) -> Array:
    words = w.shape[0]
    known = embed(w.base, ids)
    virtual = jnp.take(rows(w.prompt), ids - words, axis=0, mode="clip").astype(known.dtype)
    return jnp.where((ids >= words)[..., None], virtual, known)


@unembed.register
def _(w: SoftPrompt, h: Array) -> Array:
    return unembed(w.base, h)


@dense.register
def _(w: SoftPrompt) -> Array:
    return dense(w.base)


@fold.register
def _(w: SoftPrompt) -> Any:
    # What a prompt computes depends on the ids in the batch: it stays, with its encoder worked out.
    return SoftPrompt(fold(w.base), rows(w.prompt), w.name)


@dataclass(frozen=True)
class Prompt:
    """Trained vectors in front of the text.

    Attributes:
      length: P. init: "random" (normal, `std`), "vocabulary" (rows of the `common` first ids) or "text".
      text: the words to begin with; they need a tokenizer in `attach`, and are repeated or cut to P tokens.
      hidden: width of P-tuning's perceptron; 0 trains the vectors themselves.
    """

    length: int = 20
    init: str = "vocabulary"
    text: str = ""
    std: float = 0.5
    common: int = 5000
    hidden: int = 0
    name: str = "default"

    def attach(self, params: Params, key: Array, tokenizer: Any = None) -> Params:
        """The tree with a `SoftPrompt` as its embedding table."""
        if self.length < 1:
            raise ValueError(f"a soft prompt has at least 1 virtual token; given length {self.length}")
        base = targets.chosen(params, TABLE)[TABLE]
        if isinstance(base, SoftPrompt):
            raise ValueError(f"the model has a soft prompt already ({base.name!r}); strip it first")
        start = self._start(base, key, tokenizer)
        prompt = start if not self.hidden else self._encoder(start, key)
        return targets.replaced(params, {TABLE: SoftPrompt(base, prompt, self.name)})

    def _start(self, base: Any, key: Array, tokenizer: Any) -> Array:
        V, D = base.shape
        if self.init == "random":
            return self.std * jax.random.normal(jax.random.fold_in(key, 2), (self.length, D), jnp.float32)
        if self.init == "vocabulary":
            few = min(self.common, V)
            ids = jax.random.choice(jax.random.fold_in(key, 2), few, (self.length,), replace=few < self.length)
        elif self.init == "text":
            ids = jnp.array(self._ids(tokenizer))
        else:
            raise ValueError(f"unknown init {self.init!r} of a soft prompt; have ['random', 'text', 'vocabulary']")
        return embed(base, ids).astype(jnp.float32)

    def _ids(self, tokenizer: Any) -> list[int]:
        if tokenizer is None or not self.text:
            raise ValueError("init 'text' of a soft prompt needs `text` and a tokenizer")
        ids = list(tokenizer.encode(self.text))
        if not ids:
            raise ValueError(f"the text {self.text!r} has no token to begin a soft prompt with")
        return (ids * -(-self.length // len(ids)))[: self.length]

    def _encoder(self, start: Array, key: Array) -> PromptEncoder:
        D = start.shape[-1]
        sizes = [D, self.hidden, self.hidden, D]
        keys = jax.random.split(jax.random.fold_in(key, 3), 3)
        weights = tuple(
            jax.random.uniform(k, (i, o), jnp.float32, -(i**-0.5), i**-0.5)
            for k, i, o in zip(keys, sizes, sizes[1:], strict=False)
        )
        return PromptEncoder(start, weights, tuple(jnp.zeros((o,), jnp.float32) for o in sizes[1:]))


def virtual_ids(params: Params) -> list[int]:
    """The ids V .. V+P-1 of the soft prompt in a tree; none without one."""
    tables = jax.tree.leaves(params, is_leaf=is_wrapper)
    found = [node for node in tables if isinstance(node, SoftPrompt)]
    if not found:
        return []
    words, length = found[0].shape[0], found[0].prompt.shape[0]
    return list(range(words, words + length))


def nearest(params: Params, count: int = 5, *, metric: str = "cosine") -> tuple[np.ndarray, np.ndarray]:
    """(ids, values) [P, count]: the words whose embeddings lie nearest to each virtual token, best first.

    metric: "cosine" similarity, or "euclid" distance.
    """
    found = [n for n in jax.tree.leaves(params, is_leaf=is_wrapper) if isinstance(n, SoftPrompt)]
    if not found:
        raise ValueError("the model has no soft prompt")
    table, prompt = (np.asarray(x, np.float64) for x in (dense(found[0].base), rows(found[0].prompt)))
    if metric == "cosine":
        unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # noqa: E731
        score = unit(prompt) @ unit(table).T
        order = np.argsort(-score, axis=1, kind="stable")[:, :count]
    elif metric == "euclid":
        score = np.sqrt(np.maximum((prompt**2).sum(1)[:, None] + (table**2).sum(1)[None] - 2 * prompt @ table.T, 0))
        order = np.argsort(score, axis=1, kind="stable")[:, :count]
    else:
        raise ValueError(f"unknown metric {metric!r}; have ['cosine', 'euclid']")
    return order, np.take_along_axis(score, order, axis=1)
