"""Methods without new weights: train some of those that are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from research.core.types import Array, Params
from research.weights import targets


@dataclass(frozen=True)
class Select:
    """Trains the weights that the patterns match, in a range of layers.

    Attributes:
      target: patterns of generic paths. layers: (first, stop), empty: all; weights outside layers are not narrowed.
    """

    target: str | tuple[str, ...] = ".*"
    layers: tuple[int, ...] = ()

    def attach(self, params: Params, key: Array) -> Params:
        """The tree, its runs cut at the range."""
        del key
        cut = targets.cut(params, self.layers)
        self.selected(cut)  # refuses patterns without a match
        return cut

    def selected(self, params: Params) -> Sequence[str]:
        """Full paths of the weights that learn."""
        return list(targets.chosen(params, self.target, self.layers))


@dataclass(frozen=True)
class BitFit(Select):
    """Biases only, those of norms included. See *BitFit*, https://arxiv.org/abs/2106.10199."""

    target: str | tuple[str, ...] = (r".*/bias",)


@dataclass(frozen=True)
class Norms(Select):
    """Scales and biases of the norms only."""

    target: str | tuple[str, ...] = (r".*norm/(scale|bias)",)


@dataclass(frozen=True)
class LastLayers(Select):
    """The last `count` layers, and the final norm where there is one.

    Attributes:
      target: what of them; weights outside the layers are matched too.
    """

    target: str | tuple[str, ...] = (r".*/layers/.*",)
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is the number of layers that learn, at least 1; given {self.count}")
        if self.layers:
            raise ValueError("last_layers counts from the end; give `count`, or take method 'select' with `layers`")

    def _last(self, params: Params) -> tuple[int, int]:
        total = targets.depth(params)
        if self.count > total:
            raise ValueError(f"count {self.count} is more than the model's {total} layers")
        return total - self.count, total

    def attach(self, params: Params, key: Array) -> Params:
        """The tree, its runs cut before the last layers."""
        del key
        return targets.cut(params, self._last(params))

    def selected(self, params: Params) -> Sequence[str]:
        """Full paths of the weights that learn."""
        return list(targets.chosen(params, self.target, self._last(params)))
