"""GPTQ: column by column, each rounding error is made up for by the columns that are still to come.

See *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*, https://arxiv.org/abs/2210.17323.

I input features · O output features · G groups in a row
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from research.core.types import Array
from research.weights import grid
from research.weights.calibrate import Statistic
from research.weights.grid import Grid
from research.weights.grouped import SCALES, GroupedWeights, packed
from research.weights.packed import Packed

_BLOCK = 128  # columns whose errors reach the rest of the matrix in one product


def inverse_factor(gram: Array, damping: float) -> Array:
    """The upper Cholesky factor U of the damped inverse Hessian, H⁻¹ = Uᵀ U: row j says how an error in column j is
    spread over the columns after it."""
    diagonal = jnp.diagonal(gram)
    eye = jnp.eye(len(gram), dtype=jnp.float32)
    damped = gram + eye * (damping * jnp.mean(diagonal))
    lower = jnp.linalg.cholesky(damped)
    inverse = jax.scipy.linalg.cho_solve((lower, True), eye)
    return jnp.linalg.cholesky((inverse + inverse.T) / 2).T


def _columns(w: Array, u: Array, scale: Array, zero: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """Codes and weighted errors of one block of columns [O, b], on grids [O, b]."""

    def column(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, codes, errors = carry
        own = Grid(scale[:, j], zero[:, j])
        code = grid.codes(w[:, j], own, bits, symmetric)
        error = (w[:, j] - grid.values(code, own)) / u[j, j]
        return w - error[:, None] * u[j], codes.at[:, j].set(code), errors.at[:, j].set(error)

    blank = jnp.zeros_like(w)
    _, codes, errors = lax.fori_loop(0, w.shape[1], column, (w, blank, blank))
    return codes, errors


@partial(jax.jit, static_argnames=("bits", "group", "symmetric", "damping", "act_order"))
def gptq(
    rows: Array,
    gram: Array,
    *,
    bits: int = 4,
    group: int = 0,
    symmetric: bool = False,
    damping: float = 0.01,
    act_order: bool = False,
) -> tuple[Array, Grid]:
    """(codes [O, I], grids [O, G, 1]) of rows [O, I] whose inputs have the Gram matrix Σ xᵀ x [I, I].

    group: columns that share a grid, fitted to what they have become when their turn comes; 0: the whole row, fitted
      to the row as it was. damping: share of the mean diagonal that is added to the diagonal.
    act_order: columns with large inputs come first; grids are then fitted to the weights as they were.
    """
    w, I = rows, rows.shape[-1]
    group = min(group or I, I)
    # An input that was always 0 says nothing about its column, which is then rounded by itself.
    gram = gram + jnp.diag((jnp.diagonal(gram) == 0).astype(jnp.float32))
    fitted = grid.fit(grid.grouped(w, group), bits, symmetric, SCALES)
    order = jnp.argsort(-jnp.diagonal(gram)) if act_order else jnp.arange(I)
    spread = lambda x: jnp.repeat(x[..., 0], group, axis=-1)[:, :I][:, order]  # noqa: E731
    scale, zero = spread(fitted.scale), spread(fitted.zero)
    u = inverse_factor(gram[order][:, order], damping)
    w, moving = w[:, order], group < I and not act_order
    block = group if moving else _BLOCK
    codes, scales, zeros = [], [], []
    for start in range(0, I, block):
        part = slice(start, min(start + block, I))
        s, z = scale[:, part], zero[:, part]
        if moving:
            now = grid.fit(w[:, part], bits, symmetric, SCALES)
            s, z = (jnp.broadcast_to(x, s.shape) for x in now)
            scales.append(now.scale)
            zeros.append(now.zero)
        new, errors = _columns(w[:, part], u[part, part], s, z, bits, symmetric)
        w = w.at[:, part.stop :].add(-errors @ u[part, part.stop :])
        codes.append(new)
    if moving:
        fitted = Grid(jnp.stack(scales, 1), jnp.stack(zeros, 1))
    return jnp.concatenate(codes, 1)[:, jnp.argsort(order)], fitted


@partial(jax.jit, static_argnames=("bits", "group", "symmetric", "damping", "act_order"))
def _each_layer(rows: Array, gram: Array, **options: Any) -> tuple[Array, Grid]:
    # A program of its own, so that kernels of one shape share it.
    return lax.map(lambda pair: gptq(*pair, **options), (rows, gram))


def output_error(rows: Array, other: Array, gram: Array) -> Array:
    """Σ ‖x (W - W')ᵀ‖² over the inputs that made the Gram matrix: rows [..., O, I] -> [...]."""
    gap = rows - other
    return jnp.sum(jnp.matmul(gap, gram) * gap, axis=(-2, -1))


@dataclass(frozen=True)
class GptqWeights(GroupedWeights):
    """Group-wise codes by GPTQ, with the statistics of the inputs.

    Attributes:
      damping: share of the mean diagonal that is added. act_order: columns with large inputs come first.
    """

    CALIBRATED: ClassVar[bool] = True
    damping: float = 0.01
    act_order: bool = False

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """One layer after the other."""
        del path
        self.check()
        assert statistic is not None  # `attach` found it or refused
        if self.damping <= 0:
            raise ValueError(f"damping is a positive share of the mean diagonal; given {self.damping}")
        run = gptq if rows.ndim == 2 else _each_layer
        codes, fitted = run(
            rows,
            statistic.gram,
            bits=self.bits,
            group=self.group,
            symmetric=self.symmetric,
            damping=self.damping,
            act_order=self.act_order,
        )
        return packed(codes, fitted, self.bits, self.size(rows.shape[-1]), self.symmetric, table)
