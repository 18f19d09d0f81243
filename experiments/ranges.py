"""Which numbers a program makes on its way: the largest of every module and layer, what rounds to zero, what overflows.

The traced program is computed equation by equation, so that nothing has to be built into a model, and every result is
rounded to its type, which a compiler may leave out. Forward and backward pass are told apart by the name that JAX
gives to a transposed equation.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from research.scaling.live import scan_parts

# What these give is what they were given.
_VIEWS = {"reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "slice", "stop_gradient", "copy"}
_VIEWS |= {"concatenate", "split", "pad", "dynamic_slice", "rev"}
_HINTS = {"optimization_barrier", "layout_constraint"}  # to the compiler, of which there is none here
_MASKS = 1e38  # what stands for minus infinity in scores; no result of a computation


class Site(NamedTuple):
    """Where a number is made: pass, stack, layer (-1: outside of layers), module, operation, type."""

    backward: bool
    stack: str
    layer: int
    module: str
    operation: str
    dtype: str


class Seen(NamedTuple):
    """Of the numbers made at a site: the largest finite magnitude; how many there are, how many a rounding to the
    site's type took to zero, and how many are infinite or NaN."""

    peak: float
    count: float
    lost: float
    infinite: float


def watch(function: Callable[..., Any], *args: Any, round_to: str | None = None) -> dict[Site, Seen]:
    """What is seen while `function` is computed on `args`, in program order.

    round_to: also round every float32 result to this type, as a program would that keeps nothing in float32.
    """
    closed = jax.make_jaxpr(function)(*args)
    walk = _Walk(round_to)
    walk.through(closed.jaxpr, closed.consts, jax.tree.leaves(args), "", -1)
    seen: dict[Site, Seen] = {}
    for site, numbers in jax.device_get(walk.seen):
        new = Seen(*map(float, numbers))
        old = seen.get(site, Seen(0.0, 0.0, 0.0, 0.0))
        seen[site] = Seen(max(old.peak, new.peak), *(a + b for a, b in zip(old[1:], new[1:], strict=True)))
    return seen


@partial(jax.jit, static_argnames="round_to")
def _rounded(x: jax.Array, round_to: str) -> jax.Array:
    low = jax.lax.optimization_barrier(x.astype(round_to)).astype(jnp.float32)
    return jnp.where(jnp.abs(x) > _MASKS, x, low)


@jax.jit
def _numbers(x: jax.Array, before: jax.Array) -> list[jax.Array]:
    size = jnp.abs(x.astype(jnp.float32))
    fine = jnp.isfinite(size)
    peak = jnp.max(size, where=fine & (size < _MASKS), initial=0)
    return [peak, jnp.float32(x.size), jnp.sum((x == 0) & (before != 0), dtype=jnp.float32), jnp.sum(~fine)]


class _Walk:
    """One walk through a program; `seen` holds (site, its numbers) of every equation that makes floats."""

    def __init__(self, round_to: str | None) -> None:
        self.seen: list[tuple[Site, list[jax.Array]]] = []
        self._round_to = round_to

    def through(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], path: str, layer: int) -> list[Any]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            here = "/".join(part for part in (path, str(eqn.source_info.name_stack)) if part)
            made = self._equation(eqn, [read(atom) for atom in eqn.invars], here, layer)
            known |= dict(zip(eqn.outvars, made, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, given: list[Any], path: str, layer: int) -> list[Any]:
        name = eqn.primitive.name
        if name in _HINTS:
            return given
        if name == "scan":
            return self._scan(eqn.params, given, path, layer)
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is not None:
            closed = hasattr(inner, "consts")
            return self.through(inner.jaxpr if closed else inner, inner.consts if closed else (), given, path, layer)
        out = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
        out = list(out) if eqn.primitive.multiple_results else [out]
        if name in _VIEWS:
            return out
        before = given[0] if name == "convert_element_type" else None
        return [self._look(x, before, site_of(path, layer, name, str(x.dtype))) for x in out]

    def _scan(self, params: Any, given: list[Any], path: str, layer: int) -> list[Any]:
        """A loop, step by step; the steps of a loop over layers are layers."""
        (fixed, carried), body = scan_parts(params), params["jaxpr"]
        consts, carry, sliced = given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
        made: list[list[Any]] = []
        for n in range(params["length"]):
            i = params["length"] - 1 - n if params["reverse"] else n
            within = i if "._scan" in path else layer
            out = self.through(body.jaxpr, body.consts, [*consts, *carry, *(x[i] for x in sliced)], path, within)
            carry = out[:carried]
            made.append(out[carried:])
        if params["reverse"]:
            made.reverse()
        return [*carry, *(jnp.stack(parts) for parts in zip(*made, strict=True))]

    def _look(self, x: Any, before: Any, site: Site) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if self._round_to and x.dtype == jnp.float32:
            exact, x = x, _rounded(x, self._round_to)
            before = exact
        self.seen.append((site, _numbers(x, x if before is None else before)))
        return x


def site_of(path: str, layer: int, operation: str, dtype: str) -> Site:
    """The site of an equation from its path of names, `transpose(jvp(Transformer))/.../decoder/Block/attention/q`."""
    names = re.sub(r"transpose\(|jvp\(|\)", "", path).split("/")
    stack = next((name for name in ("encoder", "decoder") if any(n.split(".")[0] == name for n in names)), "")
    modules = [n for n in names[names.index("Block") + 1 :] if "." not in n] if "Block" in names else []
    outside = next((n for n in reversed(names) if n in ("final_norm", "embed_norm", "head")), "")
    module = "/".join(modules) or ("residual" if "Block" in names else outside or "embedding and loss")
    return Site("transpose(" in path, stack, layer, module, operation, dtype)


def overflow(seen: dict[Site, Seen]) -> Site | None:
    """The first site, in program order, that made an infinity or NaN."""
    return next((site for site, numbers in seen.items() if numbers.infinite), None)


def peaks(seen: dict[Site, Seen], backward: bool) -> dict[tuple[str, str], dict[int, float]]:
    """{(stack, part of its layers): {layer: largest magnitude}}; a part is norms, attention, mlp or residual."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for site, numbers in seen.items():
        if site.backward == backward and site.layer >= 0:
            first = site.module.split("/")[0]
            part = found.setdefault((site.stack, "norms" if first.endswith("norm") else first), {})
            part[site.layer] = max(part.get(site.layer, 0.0), numbers.peak)
    return found


def backward_shares(seen: dict[Site, Seen], dtype: str) -> tuple[float, float]:
    """Of all numbers that the backward pass rounds to `dtype`: the shares that become zero, and infinite or NaN.

    Raises:
      ValueError: it rounds none to that type.
    """
    rounded = [n for s, n in seen.items() if s.backward and s.dtype == dtype and s.operation == "convert_element_type"]
    total = sum(numbers.count for numbers in rounded)
    if not total:
        raise ValueError(f"the backward pass rounds nothing to {dtype}")
    return sum(n.lost for n in rounded) / total, sum(n.infinite for n in rounded) / total
