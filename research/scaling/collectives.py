"""Which communication a compiled program contains, and how many bytes of it pass through each device."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_WIDTH = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
_OPERATION = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')


class Collective(NamedTuple):
    """One instruction.

    Attributes:
      kind: of KINDS. size: bytes of its result on a device. group: devices that take part. times: how often it runs,
        the turns of the loops around it multiplied.
    """

    kind: str
    size: int
    group: int
    times: int

    @property
    def moved(self) -> float:
        """Bytes that a device sends in a ring, all turns: with n devices (n - 1) / n of the whole array, twice for an
        all-reduce (a reduce-scatter and an all-gather); a permutation sends all of it."""
        share = (self.group - 1) / self.group
        per = {"all-reduce": 2 * share, "reduce-scatter": self.group - 1.0, "collective-permute": 1.0}
        return self.times * self.size * per.get(self.kind, share)


def collectives(hlo: str, devices: int) -> list[Collective]:
    """All collectives of a compiled program's text (`compiled.as_text()`), in order of computations.

    devices: of the program, for instructions in which all of them take part.

    Raises:
      ValueError: the text has no entry computation.
    """
    found: dict[str, list[str]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        if (opened := _COMPUTATION.match(line)) is not None:
            current = opened[2]
            found[current] = []
            entry = current if opened[1] else entry
        elif current:
            found[current].append(line)
    if not entry:
        raise ValueError("no HLO program: it has no ENTRY computation")
    return list(_walk(found, entry, 1, devices))


def _walk(computations: dict[str, list[str]], name: str, times: int, devices: int) -> Iterator[Collective]:
    for line in computations.get(name, ()):
        if (match := _OPERATION.search(line)) is not None:
            yield Collective(match[2], _bytes(match[1], match[0]), _group(line, devices), times)
        turns = int(found[1]) if (found := _TURNS.search(line)) is not None else 1
        for one, several in _CALLED.findall(line):
            for inner in [one] if one else several.replace("%", "").split(", "):
                yield from _walk(computations, inner, times * turns, devices)


def _bytes(shape: str, operation: str) -> int:
    """Bytes of a shape such as f32[4,8]{1,0}, or of a tuple of them; of a started all-gather its result alone."""
    sizes = [
        math.prod(int(n) for n in dims.split(",") if n) * _WIDTH.get(kind, 4)
        for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    ]
    return max(sizes) if "-start(" in operation and len(sizes) > 1 else sum(sizes)


def _group(line: str, devices: int) -> int:
    """Devices of a group, written as [groups,size]<=..., {{0,1},{2,3}} or mesh['a'=2,'b'=4] {'b'}."""
    if (match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line)) is not None:
        return int(match[2])
    if (match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)) is not None:
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", match[2]))
    if (match := re.search(r"replica_groups=\{\{([\d,]+)\}", line)) is not None:
        return match[1].count(",") + 1
    return devices
