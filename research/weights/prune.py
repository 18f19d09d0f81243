"""Which numbers of a weight become zero: the small ones, those on small inputs (Wanda), or with the rest making up for
them (SparseGPT).

{"method": "magnitude", "sparsity": 0.5}                         [..., {"method": "full"}] to learn around the zeros
{"method": "wanda", "pattern": "2:4"}                            through `weights.quantize`, on text
[{"method": "lora", "rank": 8}, {"method": "wanda"}]             LoRA below the mask: merged, it is as sparse

I input features · O output features · L layers of a run
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.core.names import meant
from research.core.types import Array, Params
from research.ops.linear import dense
from research.weights import targets
from research.weights.calibrate import Statistic, Statistics, find
from research.weights.gptq import inverse_factor
from research.weights.packed import as_rows, is_packed
from research.weights.pruned import Pruned
from research.weights.quantizer import Quantizer, unfinite
from research.weights.wrapper import is_wrapper

SCOPES = ("row", "weight", "global")
_BLOCK = 128


def read_pattern(pattern: str) -> tuple[int, int]:
    """ "2:4" -> (2, 4): of every 4 inputs of an output 2 are kept.

    Raises:
      ValueError: not N:M with 0 < N < M.
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    n, m = (int(part) for part in found.groups()) if found else (0, 0)
    if not 0 < n < m:
        raise ValueError(f"a pattern is N:M with 0 < N < M, such as '2:4'; given {pattern!r}")
    return n, m


def gradual(step: int, steps: int, final: float, start: float = 0.0) -> float:
    """The sparsity at a step of gradual pruning: s_f + (s_0 − s_f) (1 − t/T)³, fast at first, then slowly.

    See *To prune, or not to prune*, https://arxiv.org/abs/1710.01878. Between two prunings the weights learn: merge,
    attach with the new sparsity, train on.
    """
    left = 1 - min(max(step / steps, 0.0), 1.0)
    return final + (start - final) * left**3


def lowest(scores: Array, share: float) -> Array:
    """True but for the lowest `share` of the last axis, rounded to a whole number; of equal scores the first go."""
    size = scores.shape[-1]
    return _ranks(scores) >= round(share * size)


def highest_of(scores: Array, n: int, m: int) -> Array:
    """True for the n highest of every m numbers along the last axis, which m divides."""
    grouped = scores.reshape(*scores.shape[:-1], -1, m)
    return (_ranks(grouped) >= m - n).reshape(scores.shape)


def _ranks(scores: Array) -> Array:
    return jnp.argsort(jnp.argsort(scores, axis=-1, stable=True), axis=-1)


@dataclass(frozen=True)
class Pruner(Quantizer):
    """Masks the chosen weights by |w|: magnitude pruning.

    Attributes:
      target, layers: which weights, as for quantization. sparsity: the share that becomes zero.
      pattern: "N:M" keeps N of every M inputs of an output; the sparsity is then 1 − N/M.
      scope: among what numbers are compared: "row" (the inputs of one output), "weight" (one layer's matrix) or
        "global" (all chosen weights together).
    """

    sparsity: float = 0.5
    pattern: str = ""
    scope: str = "weight"
    name: str = "pruned"

    def scores(self, rows: Array, statistic: Statistic | None) -> Array:
        """What is compared, [..., O, I], for rows of that shape."""
        del statistic
        return jnp.abs(rows)

    def attach(self, params: Params, key: Array, statistics: Statistics | None = None, config: Any = None) -> Params:
        """The tree with a mask around every chosen weight, adapters included.

        Raises:
          ValueError: a pattern without a match, sparsity outside [0, 1), a group that does not divide the inputs, a
            weight that is no matrix, is quantized or holds a NaN.
        """
        del key, config
        self.check()
        params = targets.cut(params, self.layers)
        found, scored, rows = self.arrays(params), {}, {}
        for path, node in found.items():
            rows[path] = as_rows(dense(node), path.endswith("/embedding"))
            self.check_inputs(path, rows[path].shape[-1])
            statistic = find(statistics, path, node) if self.CALIBRATED else None
            scored[path] = (self.scores(rows[path], statistic), statistic)
        floor = self._floor([score for score, _ in scored.values()])
        nodes = {}
        for path, node in found.items():
            kept, base = self.prune(rows[path], *scored[path], floor), node
            if isinstance(kept, tuple):
                kept, moved = kept
                base = as_rows(moved, path.endswith("/embedding")).astype(node.dtype)
            nodes[path] = Pruned(base, as_rows(kept, path.endswith("/embedding")).astype(bool), self.name)
        return targets.replaced(params, nodes)

    def prune(self, rows: Array, scores: Array, statistic: Statistic | None, floor: Array | None) -> Any:
        """The mask [..., O, I], alone or with rows that have moved."""
        del rows, statistic
        if self.pattern:
            return highest_of(scores, *read_pattern(self.pattern))
        if floor is not None:
            return scores > floor
        if self.scope == "row":
            return lowest(scores, self.sparsity)
        return lowest(scores.reshape(*scores.shape[:-2], -1), self.sparsity).reshape(scores.shape)

    def _floor(self, scores: list[Array]) -> Array | None:
        """The highest score that goes, over all weights."""
        if self.scope != "global" or self.pattern:
            return None
        if any(isinstance(score, jax.core.Tracer) for score in scores):  # only shapes are asked for
            return jnp.float32(0)
        every = np.concatenate([np.asarray(score).reshape(-1) for score in scores])
        count = round(self.sparsity * len(every))
        return jnp.float32(np.partition(every, count - 1)[count - 1]) if count else jnp.float32(-1)

    def arrays(self, params: Params) -> dict[str, Any]:
        """The weights that are to be masked, by full path; the tree is cut at the range already."""
        found = targets.chosen(params, self.target, self.layers)
        for path, node in found.items():
            if is_packed(node):
                raise ValueError(f"{path!r} is quantized: prune first, then quantize what is left")
            if len(targets.per_layer(path, node)[1]) != 2:
                raise ValueError(
                    f"matrices are pruned; {path!r} has shape {targets.per_layer(path, node)[1]} in a layer"
                )
            if bad := unfinite(dense(node)):
                raise ValueError(f"{path!r} holds {bad} numbers that are NaN or infinite")
        return found

    def check(self) -> None:
        """Refuses options that mean nothing."""
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is a share in [0, 1); given {self.sparsity}")
        if self.scope not in SCOPES:
            raise ValueError(f"unknown scope {self.scope!r}{meant(self.scope, SCOPES)}; have {list(SCOPES)}")
        if self.pattern:
            n, m = read_pattern(self.pattern)
            if self.sparsity not in (0.5, 1 - n / m):
                raise ValueError(
                    f"pattern {self.pattern!r} prunes {1 - n / m:g} by itself; given sparsity {self.sparsity}"
                )

    def check_inputs(self, path: str, size: int) -> None:
        """Refuses an N:M that does not divide a weight's inputs."""
        if self.pattern and size % read_pattern(self.pattern)[1]:
            raise ValueError(f"pattern {self.pattern!r} does not divide the {size} inputs of {path!r}")


@dataclass(frozen=True)
class Wanda(Pruner):
    """Masks by |w| ‖x‖: a number on large inputs stays. Numbers of one output are compared, as published.

    See *A Simple and Effective Pruning Approach for Large Language Models*, https://arxiv.org/abs/2306.11695.
    """

    CALIBRATED: ClassVar[bool] = True
    scope: str = "row"

    def scores(self, rows: Array, statistic: Statistic | None) -> Array:
        """|w_ij| ‖x_j‖₂ over the calibration text."""
        assert statistic is not None  # `find` found it or refused
        square = jnp.diagonal(statistic.gram, axis1=-2, axis2=-1)
        return jnp.abs(rows) * jnp.sqrt(square)[..., None, :]


@dataclass(frozen=True)
class SparseGpt(Pruner):
    """Column by column, what is pruned is made up for by the columns that are still to come.

    Chosen are the lowest w² / [H⁻¹]_jj of a block of 128 columns, or of every M. See *SparseGPT: Massive Language
    Models Can Be Accurately Pruned in One-Shot*, https://arxiv.org/abs/2301.00774.

    Attributes:
      damping: share of the Hessian's mean diagonal that is added to the diagonal.
    """

    CALIBRATED: ClassVar[bool] = True
    damping: float = 0.01

    def check(self) -> None:
        """Also refuses a scope: numbers are compared within a block."""
        super().check()
        if self.scope != "weight":
            raise ValueError(f"SparseGPT compares the numbers of a block of columns; given scope {self.scope!r}")
        if self.damping <= 0:
            raise ValueError(f"damping is a positive share of the mean diagonal; given {self.damping}")

    def arrays(self, params: Params) -> dict[str, Any]:
        """Also refuses adapters, which would not follow the numbers that move below them."""
        found = super().arrays(params)
        for path, node in found.items():
            if is_wrapper(node):
                raise ValueError(
                    f"{path!r} carries an adapter ({node.name!r}): SparseGPT comes first, the adapter after it"
                )
        return found

    def prune(self, rows: Array, scores: Array, statistic: Statistic | None, floor: Array | None) -> Any:
        """The mask and the rows that make up for it."""
        del scores, floor
        assert statistic is not None
        pattern = read_pattern(self.pattern) if self.pattern else None
        run = partial(sparse_gpt, sparsity=self.sparsity, pattern=pattern, damping=self.damping)
        if rows.ndim == 2:
            return run(rows, statistic.gram)
        return lax.map(lambda pair: run(*pair), (rows, statistic.gram))


@partial(jax.jit, static_argnames=("sparsity", "pattern", "damping"))
def sparse_gpt(
    rows: Array, gram: Array, *, sparsity: float = 0.5, pattern: tuple[int, int] | None = None, damping: float = 0.01
) -> tuple[Array, Array]:
    """(mask, new rows) of rows [O, I] whose inputs have the Gram matrix Σ xᵀ x [I, I]; see `SparseGpt`."""
    O, I = rows.shape
    dead = jnp.diagonal(gram) == 0
    w = jnp.where(dead, 0.0, rows)
    u = inverse_factor(gram + jnp.diag(dead.astype(jnp.float32)), damping)
    block = min(_BLOCK, I) if pattern is None else _whole(_BLOCK, pattern[1], I)
    columns = -(-I // block) * block
    w = jnp.pad(w, ((0, 0), (0, columns - I)))
    # Columns that are only there to fill the last block change nothing: they are 0, and so are their rows of U.
    u = jnp.pad(u, ((0, columns - I),) * 2) + jnp.diag((jnp.arange(columns) >= I).astype(jnp.float32))
    keep = jnp.ones((O, columns), bool)

    def one_block(b: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, keep = carry
        at = b * block
        part = lax.dynamic_slice(w, (0, at), (O, block))
        rest = lax.dynamic_slice(u, (at, 0), (block, columns))
        own = lax.dynamic_slice(rest, (0, at), (block, block))
        inside = jnp.arange(block) + at < I
        chosen, part, errors = _prune_block(part, own, inside, sparsity, pattern)
        w = w - errors @ jnp.where(jnp.arange(columns) >= at + block, rest, 0.0)
        return lax.dynamic_update_slice(w, part, (0, at)), lax.dynamic_update_slice(keep, chosen, (0, at))

    w, keep = lax.fori_loop(0, columns // block, one_block, (w, keep))
    return keep[:, :I], w[:, :I]


def _prune_block(
    w: Array, u: Array, inside: Array, sparsity: float, pattern: tuple[int, int] | None
) -> tuple[Array, Array, Array]:
    """Mask, weights and errors [O, b] of one block of columns."""
    diagonal = jnp.diagonal(u)

    def column(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, keep, errors = carry
        if pattern is not None:
            m = pattern[1]
            now = lax.dynamic_slice(jnp.square(w) / jnp.square(diagonal), (0, j), (len(w), m))
            fresh = lax.dynamic_update_slice(keep, highest_of(now, *pattern), (0, j))
            keep = jnp.where(j % m == 0, fresh, keep)
        error = jnp.where(keep[:, j], 0.0, w[:, j]) / diagonal[j]
        w = w - error[:, None] * u[j]
        return w, keep, errors.at[:, j].set(error)

    keep = jnp.ones(w.shape, bool)
    if pattern is None:
        scores = jnp.where(inside, jnp.square(w) / jnp.square(diagonal), jnp.inf)
        # Of the block's own numbers, of which a padded last block has fewer.
        count = jnp.round(sparsity * len(w) * jnp.sum(inside))
        keep = (_ranks(scores.reshape(-1)) >= count).reshape(w.shape)
    w, keep, errors = lax.fori_loop(0, w.shape[1], column, (w, keep, jnp.zeros_like(w)))
    return keep, jnp.where(keep, w, 0.0), errors


def _whole(block: int, m: int, size: int) -> int:
    """The number of columns of a block that groups of m divide."""
    return min(max(block // m, 1) * m, size)
