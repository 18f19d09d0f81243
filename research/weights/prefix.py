"""Prefix tuning: P trained keys and values per layer, in front of what self-attention sees.

They lie in the tree as the weight `prefix` of every attention layer, where `models` reads them; the tokens' positions
begin at P. See *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, https://arxiv.org/abs/2101.00190.

P virtual tokens · K key/value heads · H head size
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from research.core import tree
from research.core.types import Array, Params
from research.weights import targets


@dataclass(frozen=True)
class Prefix:
    """Trained keys and values; the model does not equal its base at first.

    Attributes:
      length: P. kv_heads: K, head_dim: H of the model (`recipe` fills them in). std: of the initial numbers.
      target: patterns of the attention layers' paths that get a prefix.
    """

    length: int = 20
    kv_heads: int = 0
    head_dim: int = 0
    std: float = 0.02
    target: str = r"(encoder|decoder)/layers/attention"

    def attach(self, params: Params, key: Array) -> Params:
        """The tree with `prefix` in every self-attention."""
        if self.length < 1:
            raise ValueError(f"a prefix has at least 1 virtual token; given length {self.length}")
        if not (self.kv_heads and self.head_dim):
            raise ValueError("prefix tuning needs the model's kv_heads and head_dim; attach through `recipe.attach`")
        places = {path.rsplit("/", 2)[0] for path in targets.chosen(params, rf"{self.target}/k/kernel")}
        return _grown(params, places, self._make, key)

    def _make(self, path: str, layers: int, key: Array) -> Params:
        shape = (layers, self.length, self.kv_heads, self.head_dim)
        draw = lambda k, s: self.std * jax.random.normal(k, s, jnp.float32)  # noqa: E731
        return {side: targets.drawn(key, f"{path}/{side}", shape, draw) for side in ("k", "v")}

    def selected(self, params: Params) -> list[str]:
        """Full paths of the prefixes."""
        return [path for path in tree.paths(params) if "/attention/prefix/" in path]


def _grown(node: Any, places: set[str], make: Any, key: Array, path: str = "") -> Any:
    if not isinstance(node, Mapping):
        return node
    out = {name: _grown(sub, places, make, key, f"{path}/{name}".lstrip("/")) for name, sub in node.items()}
    if path in places:
        out["prefix"] = make(f"{path}/prefix", jax.tree.leaves(out["k"])[0].shape[0], key)
    return out


def prefix_length(params: Params) -> int:
    """How many trained keys stand in front of every sequence; 0 without a prefix."""
    return next((int(leaf.shape[-3]) for path, leaf in tree.paths(params).items() if path.endswith("/prefix/k")), 0)


def removed(params: Params) -> Params:
    """The tree without its prefixes."""
    if not isinstance(params, Mapping):
        return params
    return {name: removed(sub) for name, sub in params.items() if name != "prefix"}
