"""One dial for a model's size, and the token counts that a sweep over sizes trains with.

N parameters · D tokens · C = 6 N D floating-point operations
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Dial:
    """How everything follows from the depth.

    Attributes:
      width_per_layer: D width = depth · width_per_layer. head_dim: heads = width / head_dim.
      feed_forward: F = width · feed_forward.
      learning_rate: at the width `base_width`; elsewhere times (base_width / width) ^ rate_power.
      tokens_per_parameter: training tokens of a model = tokens_per_parameter · N.

    Raises:
      ValueError: heads that do not divide the width of a layer.
    """

    width_per_layer: int = 64
    head_dim: int = 64
    feed_forward: float = 8 / 3
    learning_rate: float = 3e-3
    base_width: int = 256
    rate_power: float = 0.5
    tokens_per_parameter: float = 20.0

    def __post_init__(self) -> None:
        if self.width_per_layer % self.head_dim:
            raise ValueError(
                f"head_dim {self.head_dim} does not divide width_per_layer {self.width_per_layer}: heads would be cut"
            )

    def model(self, depth: int) -> dict[str, Any]:
        """The sizes of the model, as fields of `ModelConfig`.

        Raises:
          ValueError: no layer.
        """
        if depth < 1:
            raise ValueError(f"a model has at least 1 layer; given depth {depth}")
        width = depth * self.width_per_layer
        heads = width // self.head_dim
        sizes = {"n_layers": depth, "d_model": width, "n_heads": heads, "n_kv_heads": heads, "head_dim": self.head_dim}
        return sizes | {"d_ff": round(width * self.feed_forward)}

    def rate(self, depth: int) -> float:
        """The learning rate of that depth."""
        return self.learning_rate * (self.base_width / (depth * self.width_per_layer)) ** self.rate_power


def token_counts(
    parameters: int,
    own: float,
    *,
    tokens: Sequence[float] = (),
    multiples: Sequence[float] = (),
    budgets: Sequence[float] = (),
    per_step: int = 1,
    span: tuple[float, float] = (0, float("inf")),
) -> list[int]:
    """The D of one size, in order: as given, multiples of its `own` count, and C / (6 N) of each IsoFLOP budget.

    per_step: tokens of a step; counts are whole steps, at least one. span: what is outside is left out.

    Raises:
      ValueError: none is left.
    """
    asked = [*tokens, *(own * multiple for multiple in multiples), *(c / (6 * parameters) for c in budgets)]
    kept = sorted({per_step * max(1, round(d / per_step)) for d in asked if span[0] <= d <= span[1]})
    if not kept:
        raise ValueError(f"a model of {parameters:,} parameters has no token count within {span}; asked {asked}")
    return kept


def dial_of(settings: Mapping[str, Any]) -> Dial:
    """The dial of a config section.

    Raises:
      ValueError: a name that does not exist.
    """
    known = Dial.__dataclass_fields__
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"unknown settings {unknown} of the dial; have {sorted(known)}")
    return Dial(**settings)
