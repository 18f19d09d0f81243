"""How many bytes a traced program holds at once beyond its arguments: a walk over its equations, nothing is run.

An array takes memory from the equation that makes it to the last one that reads it. Element-wise equations are fused
into whoever reads them, as XLA does, and take none; a scan holds what it stacks from its beginning, and one turn of
its body on top. A scan that is unrolled whole is no loop any more: its turns are written out one behind the other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.interpreters import partial_eval

# (array, name of the primitive that made it, whether that was inside a loop) -> what its bytes are counted as.
Label: TypeAlias = Callable[[Any, str, bool], str]

_CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat"}
_CALLS |= {"remat2", "custom_vjp_call_jaxpr", "custom_vmap_call", "shard_map"}
_CALLED = ("jaxpr", "call_jaxpr", "call")
_VIEWS = {"reshape", "squeeze", "expand_dims", "transpose", "optimization_barrier", "layout_constraint"}
_VIEWS |= {"sharding_constraint", "stop_gradient", "copy"}
# These read their operands from memory and write their result to it.
_KERNELS = {"dot_general", "scan", "while", "cond", "gather", "sort", "concatenate", "dynamic_update_slice", "top_k"}
_KERNELS |= {
    "scatter",
    "scatter-add",
    "scatter_add",
    "cumsum",
    "cummax",
    "conv_general_dilated",
    "random_bits",
    "stack",
}
_PRODUCTS, _LOOPS = {"dot_general", "dot_uint8_int8"}, {"scan", "while"}
_KERNELS |= _PRODUCTS | {"ppermute"}
# Until jax 0.12 the CPU backend keeps what a loop stacks in float32 too.
_WIDE_STACKS = jax.__version_info__ < (0, 12)
_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_prod", "argmax", "argmin"}
# Too dear to be computed once for every reader.
_DEAR = {"exp", "tanh", "log", "erf", "rsqrt", "sqrt", "logistic", "pow", "div", "sin", "cos", "expm1", "log1p"}


class _Op(NamedTuple):
    name: str
    params: dict[str, Any]
    operands: list[Any]
    outputs: list[Any]


class _Value:
    """An array of the flattened program; identity is all it has besides its shape and type."""

    def __init__(self, aval: Any) -> None:
        self.aval = aval


def peak(jaxpr: Any, label: Label = lambda *_: "bytes", *, cpu: bool = False) -> Counter[str]:
    """Bytes at the fullest moment of a program whose arguments and results belong to the caller, by label.

    jaxpr: as `jax.jit(f).trace(...)` gives it. cpu: as XLA's CPU backend does it, which computes and keeps
    bf16 and fp16 in float32 and orders equations breadth first.
    """
    plain = getattr(jaxpr, "jaxpr", jaxpr)
    used, _ = partial_eval.dce_jaxpr(plain, [True] * len(plain.outvars), instantiate=True)
    return _Walk(used, label, cpu, depth=0).peak()


def carried(jaxpr: Any) -> int:
    """Bytes of what all loops of a program carry."""
    loops = [op for op in _flatten(getattr(jaxpr, "jaxpr", jaxpr))[0].ops if op.name == "scan"]
    return sum(_bytes(value.aval, False) for op in loops for value in op.outputs[: scan_parts(op.params)[1]])


class _Walk:
    """One level of a program: the whole of it, or the body of a loop."""

    def __init__(self, jaxpr: Any, label: Label, cpu: bool, depth: int, sliced: Sequence[int] = ()) -> None:
        self.label, self.cpu, self.depth = label, cpu, depth
        program, inputs, outputs = _flatten(jaxpr)
        self.ops = program.ops
        self.kept = {value for turns in program.turns.values() for value in turns}
        # A slice of a stacked argument is copied where a kernel reads it.
        self.sliced = [inputs[i] for i in sliced]
        self.outputs = {value for value in outputs if value is not None}
        self._index()
        self._study()
        if cpu:
            self._side_by_side()

    def _side_by_side(self) -> None:
        """Puts the equations into the order of XLA's CPU backend: breadth first, so that threads have work."""
        depth: dict[Any, int] = {}
        levels = []
        for op in self.ops:
            level = max((depth.get(value, 0) for value in op.operands if value), default=0)
            levels.append(level)
            depth |= {value: level + (value in self.buffered) for value in op.outputs}
        order = sorted(range(len(self.ops)), key=levels.__getitem__)
        self.ops = [self.ops[k] for k in order]
        self._index()
        self._study()

    def _index(self) -> None:
        self.readers: dict[Any, list[int]] = {}
        for k, op in enumerate(self.ops):
            for value in filter(None, op.operands):
                self.readers.setdefault(value, []).append(k)

    def _study(self) -> None:
        """Backwards: which values a kernel reads, which have a buffer, and until which equation each is needed."""
        self.by_kernel: set[Any] = set()
        self.by_product: set[Any] = set()
        self.buffered: set[Any] = set()
        self.last: dict[Any, int] = {}
        for op in [*reversed(self.ops), _Op("start", {}, [], self.sliced)]:
            for value in op.outputs:
                readers = self.readers.get(value, [])
                if any(self._behind(k, _KERNELS, self.by_kernel) for k in readers):
                    self.by_kernel.add(value)
                if any(self._behind(k, _PRODUCTS, self.by_product) for k in readers):
                    self.by_product.add(value)
                if self._has_buffer(op.name, value, len(readers)):
                    self.buffered.add(value)
                self.last[value] = max((self._needed(k) for k in readers), default=-1)
                if value in self.kept and value not in self.buffered:
                    self.kept |= set(op.operands)  # it is these that have the bytes

    def _behind(self, k: int, names: set[str], known: set[Any]) -> bool:
        """Whether equation k is of these, or shows its operand to one of them."""
        op = self.ops[k]
        return op.name in names or (op.name in _VIEWS and any(o in known for o in op.outputs))

    def _has_buffer(self, name: str, value: Any, readers: int) -> bool:
        if name in _KERNELS or name in _REDUCTIONS:
            return True
        if name in _VIEWS and name != "transpose":
            return False
        return value in self.by_kernel or (name in _DEAR and readers > 1) or self._rounded(name, value)

    def _rounded(self, name: str, value: Any) -> bool:
        """Whether the CPU backend rounds what it keeps for later and keeps it so, instead of what it came from."""
        low = getattr(value.aval, "dtype", None) == jnp.bfloat16
        return self.cpu and low and value in self.kept and name not in _KERNELS | _VIEWS

    def _needed(self, k: int) -> int:
        """Until when an operand of equation k is read: by k, or by whoever k is fused into."""
        later = (self.last[value] for value in self.ops[k].outputs if value not in self.buffered)
        return max([k, *later])

    def peak(self) -> Counter[str]:
        """The bytes of the fullest moment, by label."""
        changes: list[Counter[str]] = [Counter() for _ in range(len(self.ops) + 2)]
        for value in self.sliced:
            if value in self.buffered:
                self._hold(changes, value, self.readers[value][0], "slice")
        for k, op in enumerate(self.ops):
            for value in op.outputs:
                # Results are written where the caller has room for them; what a kernel makes in a loop is copied there.
                if value in self.buffered and (value not in self.outputs or (self.depth and op.name in _KERNELS)):
                    self._hold(changes, value, k, op.name)
        now: Counter[str] = Counter()
        fullest: Counter[str] = Counter()
        for k, change in enumerate(changes[:-1]):
            now.update(change)
            here = now + self._inside(self.ops[k]) if k < len(self.ops) else now
            fullest = max(fullest, +here, key=Counter.total)
        return fullest

    def _hold(self, changes: list[Counter[str]], value: Any, start: int, maker: str) -> None:
        wide = self.cpu and self._is_widened(maker, value)
        made_by = "scan" if value in self.kept else maker
        size, name = _bytes(value.aval, wide), self.label(value.aval, made_by, self.depth > 0)
        changes[start][name] += size
        end = self.last[value]
        # What a loop starts from becomes what it carries, in place.
        handed = end < len(self.ops) and end > start and value in self._carried(self.ops[end])
        changes[end if handed else max(end, start) + 1][name] -= size

    def _is_widened(self, maker: str, value: Any) -> bool:
        """Whether the CPU backend keeps a value of low precision in float32.

        It does, but hands bf16 to products as it is and rounds what a backward pass waits for; fp16 it has no products
        for. What a loop stacks stays as it is, but for bf16 in old versions.
        """
        half = getattr(value.aval, "dtype", None) == jnp.float16
        if maker in _LOOPS:
            return _WIDE_STACKS and not half
        return half or not (value in self.by_product or self._rounded(maker, value))

    @staticmethod
    def _carried(op: _Op) -> list[Any]:
        """The operands in whose place a loop puts what it carries."""
        if op.name == "scan":
            first, carried = scan_parts(op.params)
            return op.operands[first : first + carried]
        return op.operands[op.params["cond_nconsts"] + op.params["body_nconsts"] :] if op.name == "while" else []

    def _inside(self, op: _Op) -> Counter[str]:
        """What an equation needs while it runs, besides its operands and results."""
        if op.name == "scan":
            body = op.params["jaxpr"].jaxpr
            return self._body(body, range(sum(scan_parts(op.params)), len(body.invars)))
        if op.name == "while":
            return self._body(op.params["body_jaxpr"].jaxpr)
        if op.name == "cond":
            return max((self._body(branch.jaxpr) for branch in op.params["branches"]), key=Counter.total)
        if op.name == "dot_general" and all(op.operands):
            return self._transposed(op)
        return Counter()

    def _transposed(self, op: _Op) -> Counter[str]:
        """A product whose left operand is contracted over its rows (aᵀ b) copies the smaller operand in order."""
        (left, _), _ = op.params["dimension_numbers"]
        a, b = op.operands
        if a.aval.ndim - 1 in left:
            return Counter()
        copied = min(a.aval, b.aval, key=lambda aval: _bytes(aval, wide=False))
        return Counter({self.label(copied, op.name, self.depth > 0): _bytes(copied, wide=False)})

    def _body(self, jaxpr: Any, sliced: Sequence[int] = ()) -> Counter[str]:
        return _Walk(jaxpr, self.label, self.cpu, self.depth + 1, sliced).peak()


def scan_parts(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many operands of a scan equation are constants, and how many it carries; the rest is sliced."""
    if "ft_in" in params:  # jax 0.12
        consts, carried, _ = (list(part) for part in params["ft_in"].unpack())
        return len(consts), len(carried)
    return params["num_consts"], params["num_carry"]


def _bytes(aval: Any, wide: bool) -> int:
    if not hasattr(aval, "dtype") or jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended):
        return 0
    return aval.size * (4 if wide and aval.dtype in (jnp.bfloat16, jnp.float16) else aval.dtype.itemsize)


def _stacks(eqn: Any) -> bool:
    """Whether a loop reads or leaves something turn by turn, as layers do."""
    consts, carried = scan_parts(eqn.params)
    return len(eqn.invars) > consts + carried or len(eqn.outvars) > carried


class _Program:
    """The equations of a program with calls, and loops that are unrolled whole, written out in place."""

    def __init__(self) -> None:
        self.ops: list[_Op] = []
        # What an unrolled loop stacks, turn by turn: another one reads its turns and not the stack.
        self.turns: dict[Any, list[Any]] = {}

    def write(self, jaxpr: Any, given: Sequence[Any]) -> list[Any]:
        """Adds the equations of a jaxpr with these inputs; its outputs."""
        known = dict(zip(jaxpr.invars, given, strict=True)) | {v: _Value(v.aval) for v in jaxpr.constvars}
        read = lambda atom: None if isinstance(atom, Literal) else known.get(atom)  # noqa: E731
        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            called = next((eqn.params[name] for name in _CALLED if name in eqn.params), None)
            if called is not None and eqn.primitive.name in _CALLS:
                results = self.write(getattr(called, "jaxpr", called), operands)
            elif eqn.primitive.name == "scan" and 1 < eqn.params["length"] <= eqn.params["unroll"] and _stacks(eqn):
                results = self._unroll(eqn, operands)
            else:
                results = [_Value(v.aval) for v in eqn.outvars]
                self.ops.append(_Op(eqn.primitive.name, eqn.params, operands, results))
            known |= dict(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _unroll(self, eqn: Any, operands: list[Any]) -> list[Any]:
        body, length = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
        consts, carried = scan_parts(eqn.params)
        fixed, carry = operands[:consts], operands[consts : consts + carried]
        sliced = body.invars[consts + carried :]
        sources = [self._turns(*pair, length) for pair in zip(operands[consts + carried :], sliced, strict=True)]
        stacks = [_Value(v.aval) for v in eqn.outvars[carried:]]
        self.turns |= {stack: [None] * length for stack in stacks}
        order = list(reversed(range(length)) if eqn.params["reverse"] else range(length))
        for i in order:
            found = self.write(body, [*fixed, *carry, *(source[i] for source in sources)])
            carry = found[:carried]
            for stack, value in zip(stacks, found[carried:], strict=True):
                self.turns[stack][i] = value
                if i == order[0]:  # there from now on, for turns are written into it
                    self.ops.append(_Op("stack", {}, [value], [stack]))
        return [*carry, *stacks]

    def _turns(self, value: Any, turn: Any, length: int) -> list[Any]:
        if value in self.turns:
            return self.turns[value]
        parts = [_Value(turn.aval) for _ in range(length)]
        self.ops += [_Op("slice", {}, [value], [part]) for part in parts]
        return parts


def _flatten(jaxpr: Any) -> tuple[_Program, list[Any], list[Any]]:
    """The program written out, its inputs and outputs; without stacks of which only single turns are read."""
    program, inputs = _Program(), [_Value(v.aval) for v in jaxpr.invars]
    outputs = program.write(jaxpr, inputs)
    read = {value for op in program.ops for value in op.operands} | set(outputs)
    program.ops = [op for op in program.ops if op.name != "stack" or op.outputs[0] in read]
    return program, inputs, outputs
