"""Loss scaling: the loss is multiplied before it is differentiated, so that gradients in float16 do not round to zero.

scale -> scale / 2 and no update where the loss or a gradient is not finite; scale · 2 after `growth_interval` updates
in a row. The scale is that of the mean loss of a micro-batch, as in the papers, and a power of two where `initial` is
one. See *Mixed Precision Training*, Micikevicius et al., https://arxiv.org/abs/1710.03740.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from research.core import tree
from research.core.dtypes import Policy
from research.core.names import meant

DEFAULTS: dict[str, Any] = {
    "initial": 65536.0,  # of the first step
    "growth_interval": 2000,  # finite steps in a row before it doubles; 0: it stays, and an overflow stops the run
    "floor": 1.0,  # where halving would take it below this, the run stops
}


@flax.struct.dataclass
class LossScale:
    """The scale of the next step and what decides the one after it; saved and restored with the state.

    Attributes:
      scale: float32 []. good: finite steps since it last changed, int32 []. skipped: updates skipped so far, int32 [].
    """

    scale: jax.Array
    good: jax.Array
    skipped: jax.Array
    growth_interval: int = flax.struct.field(pytree_node=False)
    floor: float = flax.struct.field(pytree_node=False)

    def factor(self, weight: jax.Array) -> jax.Array:
        """What the loss sum of a micro-batch is multiplied by, given the weight that makes it a mean."""
        return self.scale / jnp.where(weight > 0, weight, 1)

    def may_skip(self) -> jax.Array:
        """Whether a step that is not finite can be passed over: the scale can still be halved."""
        return jnp.bool_(self.growth_interval > 0) & (self.scale / 2 >= self.floor)

    def after(self, finite: jax.Array) -> "LossScale":
        """The scale of the next step, given whether loss and gradients of this one are finite."""
        may_skip, grown = self.may_skip(), self.scale * 2
        grows = finite & (self.good + 1 == self.growth_interval)
        scale = jnp.where(grows & jnp.isfinite(grown), grown, self.scale)
        return dataclasses.replace(
            self,
            scale=jnp.where(~finite & may_skip, self.scale / 2, scale),
            good=jnp.where(finite & ~grows, self.good + 1, 0),
            skipped=self.skipped + (~finite & may_skip),
        )


def begin(initial: float, growth_interval: int, floor: float) -> LossScale:
    """The scale of the first step; see `DEFAULTS`."""
    zero = jnp.zeros((), jnp.int32)
    return LossScale(jnp.float32(initial), zero, jnp.copy(zero), growth_interval, floor)


def make(config: Mapping[str, Any], policy: Policy, learning: Any) -> LossScale | None:
    """The loss scale of a run that trains the weights `learning` (arrays or shapes); None where none is needed.

    Raises:
      ValueError: an unknown key, numbers that make no schedule, settings for a policy that needs no scale, or weights
        to train that are stored in float16.
    """
    settings = DEFAULTS | dict(config)
    for name in config:
        if name not in DEFAULTS:
            raise ValueError(f"unknown key loss_scale.{name}{meant(name, DEFAULTS)}; have {sorted(DEFAULTS)}")
    half = [path for path, leaf in tree.paths(learning).items() if leaf.dtype == jnp.float16]
    if half:
        raise ValueError(
            f"{half[0]!r} is stored in float16 and cannot be trained: updates below a 2000th of a weight are lost, and "
            "moments leave the range of the type; take the policy 'f16' (float32 weights, float16 products)"
        )
    if policy.compute != jnp.float16:
        changed = {name: value for name, value in settings.items() if value != DEFAULTS[name]}
        if changed:
            raise ValueError(
                f"loss_scale {changed} does nothing where products are in {policy.compute}, which has the range of "
                "float32: leave it out, or take the policy 'f16'"
            )
        return None
    _check(settings)
    return begin(**settings)


def _check(settings: Mapping[str, Any]) -> None:
    initial, interval, floor = (settings[name] for name in ("initial", "growth_interval", "floor"))
    if not (0 < floor <= initial < math.inf):
        raise ValueError(f"loss_scale needs 0 < floor <= initial; given floor {floor} and initial {initial}")
    if interval < 0 or interval != int(interval):
        raise ValueError(f"loss_scale.growth_interval is a number of steps, or 0 for a fixed scale; given {interval}")
