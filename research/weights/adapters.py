"""Small layers behind a projection: Houlsby's bottlenecks, and (IA)³'s learned gains.

I input features · O output features · M bottleneck width
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from research.core.types import Array, Params
from research.ops.activations import activation
from research.ops.dot import add_bias, dot
from research.ops.linear import dense, linear
from research.weights import targets
from research.weights.wrapper import Wrapper


@struct.dataclass
class Bottleneck(Wrapper):
    """y + up(act(down y)) behind y = x W + b.

    See *Parameter-Efficient Transfer Learning for NLP*, https://arxiv.org/abs/1902.00751.

    Attributes:
      base: [..., I, O]. down: [..., O, M]. down_bias: [..., M]. up: [..., M, O]. up_bias: [..., O].
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("down", "down_bias", "up", "up_bias")
    base: Any
    down: Array
    down_bias: Array
    up: Array
    up_bias: Array
    activation: str = struct.field(pytree_node=False, default="gelu")
    name: str = struct.field(pytree_node=False, default="default")

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """The wide side follows the columns of the base."""
        *rest, _, o = spec
        return {"down": (*rest, o, None), "up": (*rest, None, o), "up_bias": (*rest, o)}


@struct.dataclass
class Scaled(Wrapper):
    """s ⊙ (x W + b) on the side "output", (s ⊙ x) W + b on the side "input".

    See *Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning*,
    https://arxiv.org/abs/2205.05638.

    Attributes:
      base: [..., I, O]. gain: s, [..., O] or [..., I].
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("gain",)
    base: Any
    gain: Array
    side: str = struct.field(pytree_node=False, default="output")
    name: str = struct.field(pytree_node=False, default="default")

    def bias(self, bias: Any) -> Any:
        """The bias is scaled with the output."""
        return (bias * self.gain).astype(bias.dtype) if self.side == "output" and bias is not None else bias

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """The gain follows the axis it scales."""
        *rest, i, o = spec
        return {"gain": (*rest, o if self.side == "output" else i)}


@linear.register
def _(w: Bottleneck, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    y = linear(w.base, x, bias, rng)
    h = activation(w.activation)(add_bias(dot(y, w.down), w.down_bias))
    return y + add_bias(dot(h, w.up), w.up_bias)


@dense.register
def _(w: Bottleneck) -> Array:
    raise ValueError(f"a bottleneck adapter ({w.name!r}) is not linear: it cannot be merged into the weight it follows")


@linear.register
def _(w: Scaled, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    if w.side == "input":
        return linear(w.base, (x * w.gain).astype(x.dtype), bias, rng)
    return (linear(w.base, x, bias, rng) * w.gain).astype(x.dtype)


@dense.register
def _(w: Scaled) -> Array:
    base = dense(w.base)
    gain = w.gain[..., None, :] if w.side == "output" else w.gain[..., :, None]
    return (base * gain).astype(base.dtype)


@dataclass(frozen=True)
class Houlsby:
    """Bottlenecks behind the projections into the residual stream; the way up starts at zero, so nothing changes.

    Attributes:
      target: patterns of generic paths. layers: (first, stop), empty: all.
      width: M. activation: by name. std: of the initial way down.
    """

    target: str | tuple[str, ...] = r".*/((attention|cross)/o|mlp/down)/kernel"
    layers: tuple[int, ...] = ()
    width: int = 16
    activation: str = "gelu"
    std: float = 0.02
    name: str = "default"

    def attach(self, params: Params, key: Array) -> Params:
        """The tree with a `Bottleneck` around every chosen weight."""
        if self.width < 1:
            raise ValueError(f"an adapter is at least 1 wide; given width {self.width}")
        activation(self.activation)
        params = targets.cut(params, self.layers)

        def wrap(path: str, base: Any) -> Bottleneck:
            stack, (_, O) = targets.per_layer(path, base)
            down = targets.drawn(
                key, path, (*stack, O, self.width), lambda k, s: self.std * jax.random.normal(k, s, jnp.float32)
            )
            zeros = lambda *shape: jnp.zeros((*stack, *shape), jnp.float32)  # noqa: E731
            up = zeros(self.width, O)
            return Bottleneck(base, down, zeros(self.width), up, zeros(O), self.activation, self.name)

        found = targets.chosen(params, self.target, self.layers)
        return targets.replaced(params, {path: wrap(path, node) for path, node in found.items()})


@dataclass(frozen=True)
class Ia3:
    """Gains, one at first, on keys and values and on the input of the last feed-forward projection.

    Attributes:
      outputs, inputs: patterns of the kernels whose output or input is scaled. layers: (first, stop), empty: all.
    """

    outputs: str | tuple[str, ...] = r".*/(attention|cross)/(k|v)/kernel"
    inputs: str | tuple[str, ...] = r".*/mlp/down/kernel"
    layers: tuple[int, ...] = ()
    name: str = "default"

    def attach(self, params: Params, key: Array) -> Params:
        """The tree with a `Scaled` around every chosen weight."""
        del key
        params = targets.cut(params, self.layers)
        for side, patterns in (("output", self.outputs), ("input", self.inputs)):
            if not patterns:
                continue
            found = targets.chosen(params, patterns, self.layers)
            nodes = {}
            for path, base in found.items():
                stack, (I, O) = targets.per_layer(path, base)
                gain = jnp.ones((*stack, O if side == "output" else I), jnp.float32)
                nodes[path] = Scaled(base, gain, side, self.name)
            params = targets.replaced(params, nodes)
        return params
