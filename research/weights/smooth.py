"""Numbers moved from activations to weights without changing what the model computes, so that both are easy to round.

The input features of the kernels behind a norm are divided by s, in the norm's own scale, and the kernels' rows are
multiplied by s. The same goes for two projections with nothing but sums between them: values and the attention's
output, and the two last projections of a gated feed-forward layer.

See *SmoothQuant*, https://arxiv.org/abs/2211.10438, and *AWQ*, https://arxiv.org/abs/2306.00978.

I input features · L layers of a run
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from research.core import tree
from research.core.types import Array, Params
from research.weights import targets
from research.weights.calibrate import Statistics, find
from research.weights.quantizer import Quantizer, check
from research.weights.targets import is_weight

_TINY = 1e-5


class Site(NamedTuple):
    """Kernels that read the same features, and the norm or kernel that writes them; paths within a layer."""

    source: str
    readers: tuple[str, ...]


def sites(config: Any) -> tuple[Site, ...]:
    """Where numbers can be moved in a layer of this model.

    A norm that stands behind a sublayer also feeds the residual stream, so it cannot be changed for its readers alone.
    """
    found = []
    own = ("attention/q", "attention/k", "attention/v")
    up = ("mlp/up", "mlp/gate") if config.gated else ("mlp/up",)
    if config.norm_position == "parallel":
        found.append(Site("attention_norm", own + up))
    elif config.norm_position != "post":
        found += [Site("attention_norm", own), Site("mlp_norm", up), Site("cross_norm", ("cross/q",))]
    if config.n_kv_heads == config.n_heads:
        found += [Site("attention/v", ("attention/o",)), Site("cross/v", ("cross/o",))]
    if config.gated:
        found.append(Site("mlp/up", ("mlp/down",)))
    return tuple(found)


def places(params: Params, config: Any) -> list[tuple[str, list[str]]]:
    """(path of the source, paths of the readers' kernels) of every site in every run."""
    found = {path for path, _ in _weights(params)}
    runs = sorted({path[: path.index("/attention/")] for path in found if "/attention/q/kernel" in path})
    out = []
    for run in runs:
        for source, readers in sites(config):
            kernels = [f"{run}/{reader}/kernel" for reader in readers]
            here = any(path.startswith(f"{run}/{source}/") for path in found)
            if here and all(kernel in found for kernel in kernels):
                out.append((f"{run}/{source}", kernels))
    return out


def _weights(params: Params) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_weight)
    return [(tree.path_of(keys), node) for keys, node in found]


def moved(
    params: Params,
    statistics: Statistics | None,
    config: Any,
    choose: Callable[[list[Array], list[Any]], Array],
    wanted: Sequence[str],
) -> tuple[Params, dict[str, Array]]:
    """The tree with `choose(kernels [L, I, O], statistics)` -> s [L, I] applied at every site that has a wanted reader.

    Beside it the s of every reader, by path.

    Raises:
      ValueError: no config, no such site, or a kernel that is quantized already or carries an adapter.
    """
    if config is None:
        raise ValueError("moving numbers between weights needs the model's config: give `config`")
    nodes = dict(_weights(params))
    chosen = [(source, readers) for source, readers in places(params, config) if set(readers) & set(wanted)]
    if not chosen:
        raise ValueError(
            f"none of {sorted(map(tree.generic, wanted))} reads features that can be scaled where they are written "
            f"(norm_position {config.norm_position!r}, gated {config.gated})"
        )
    scales = {}
    for source, readers in chosen:
        for path in readers:
            if is_weight(nodes[path]):
                raise ValueError(f"{path!r} is quantized or carries an adapter: its features cannot be scaled any more")
            check(path, nodes[path])
        facts = [find(statistics, path, nodes[path]) for path in readers]
        scale = choose([nodes[path].astype(jnp.float32) for path in readers], facts)
        for path in readers:
            nodes[path] = (nodes[path] * scale[..., :, None]).astype(nodes[path].dtype)
            scales[path] = scale
        nodes |= _divided(nodes, source, scale, config.norm_offset)
    return targets.replaced(params, nodes), scales


def _divided(nodes: Mapping[str, Any], source: str, scale: Array, offset: float) -> dict[str, Any]:
    """The norm or the kernel that writes the features, divided by the scale [L, I]."""
    out = {}
    for path, divide in (
        (f"{source}/scale", lambda w: (w + offset) / scale - offset),
        (f"{source}/bias", lambda w: w / scale),
        (f"{source}/kernel", lambda w: w / scale[..., None, :]),
    ):
        if path in nodes:
            if is_weight(nodes[path]):
                raise ValueError(f"{path!r} is quantized or carries an adapter: its features cannot be scaled any more")
            out[path] = divide(nodes[path]).astype(nodes[path].dtype)
    return out


@dataclass(frozen=True)
class Smooth(Quantizer):
    """s = (max |x|)^α / (max |W|)^(1-α) per feature: outliers of activations become larger weights.

    The model computes what it did. Give it in front of a rule that rounds activations ("int8_dynamic", "int8_static").

    Attributes:
      alpha: α, how much of the difficulty is moved to the weights.
    """

    CALIBRATED: ClassVar[bool] = True
    alpha: float = 0.5

    def attach(self, params: Params, key: Array, statistics: Statistics | None = None, config: Any = None) -> Params:
        """The tree with scales moved from norms to kernels."""
        del key
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha lies in 0..1; given {self.alpha}")
        params = targets.cut(params, self.layers)

        def choose(kernels: list[Array], facts: list[Any]) -> Array:
            peak = jnp.maximum(facts[0].peak, _TINY)
            weight = jnp.max(jnp.stack([jnp.max(jnp.abs(w), -1) for w in kernels]), 0)
            return jnp.maximum(peak**self.alpha / jnp.maximum(weight, _TINY) ** (1 - self.alpha), _TINY)

        return moved(params, statistics, config, choose, list(self.arrays(params)))[0]
