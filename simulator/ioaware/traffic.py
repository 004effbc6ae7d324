"""The record that all readers and counters speak: bytes moved, per tensor. Comparisons are `measured - predicted`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Moved(NamedTuple):
    """Bytes of one tensor, seen from the chip. An atomic add is its own column: it reads and writes."""

    read: int = 0
    write: int = 0
    add: int = 0

    @property
    def read_bytes(self) -> int:
        """Bytes read, those of atomic adds included."""
        return self.read + self.add

    @property
    def write_bytes(self) -> int:
        """Bytes written, those of atomic adds included."""
        return self.write + self.add


NOTHING = Moved()


class Traffic:
    """Bytes moved per tensor: immutable; adds, subtracts and scales. Tensors that do not move are left out."""

    __slots__ = ("tensors",)
    tensors: Mapping[str, Moved]

    def __init__(self, tensors: Mapping[str, Moved] = MappingProxyType({})) -> None:
        self.tensors = {name: moved for name, moved in tensors.items() if moved != NOTHING}

    @property
    def read_bytes(self) -> int:
        """Bytes read over all tensors."""
        return sum(m.read_bytes for m in self.tensors.values())

    @property
    def write_bytes(self) -> int:
        """Bytes written over all tensors."""
        return sum(m.write_bytes for m in self.tensors.values())

    @property
    def total_bytes(self) -> int:
        """Bytes read and written."""
        return self.read_bytes + self.write_bytes

    def __getitem__(self, tensor: str) -> Moved:
        return self.tensors.get(tensor, NOTHING)

    def __add__(self, other: Traffic) -> Traffic:
        return self._zip(other, 1)

    def __sub__(self, other: Traffic) -> Traffic:
        return self._zip(other, -1)

    def _zip(self, other: Traffic, sign: int) -> Traffic:
        names = dict.fromkeys([*self.tensors, *other.tensors])
        return Traffic({n: Moved(*(a + sign * b for a, b in zip(self[n], other[n], strict=True))) for n in names})

    def __mul__(self, times: int) -> Traffic:
        return Traffic({n: Moved(*(times * x for x in m)) for n, m in self.tensors.items()})

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traffic) and self.tensors == other.tensors

    def __hash__(self) -> int:
        return hash(frozenset(self.tensors.items()))

    def __bool__(self) -> bool:
        return bool(self.tensors)

    def __repr__(self) -> str:
        return f"Traffic({dict(self.tensors)!r})"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: totals, and each tensor's reads and writes; `atomic_bytes` where there are atomic adds."""
        tensors = {}
        for name, m in self.tensors.items():
            tensors[name] = {"read_bytes": m.read_bytes, "write_bytes": m.write_bytes}
            if m.add:
                tensors[name]["atomic_bytes"] = m.add
        return {"read_bytes": self.read_bytes, "write_bytes": self.write_bytes, "tensors": tensors}
