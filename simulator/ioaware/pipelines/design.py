"""What a kernel's design fixes besides traffic: who does what, what lies where, and the work of one tile.

Sizes come from the kernels' own layouts. Shared memory is in bytes, registers are 32-bit and per thread, tensor memory
is in columns of 128 lanes x 4 B. Work is counted in FLOP and in bytes between shared memory and the units of the SM;
what arrives from global memory is the traffic of `simulate` and not counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from ..device import Device
from ..problem import AttentionProblem

COMPILED = 255  # registers per thread where the compiler chooses: the most that an instruction can name


class Tile(NamedTuple):
    """`q` query rows against `kv` keys; head dims as the kernel pads them; bytes per element of Q, K and V."""

    q: int
    kv: int
    d: int
    dv: int
    itemsize: int

    @property
    def scores(self) -> int:
        """Scores of the tile, each of which becomes an exponential."""
        return self.q * self.kv


class Role(NamedTuple):
    """Warps that do the same work, with as many registers per thread as setmaxnreg gives them (None: the compiler)."""

    name: str
    warps: int
    registers: int | None
    work: str


class Entry(NamedTuple):
    """One line of a ledger, in the ledger's unit."""

    what: str
    size: int


class Product(NamedTuple):
    """A matrix product of the tile, and the bytes of its operands that are read from shared memory."""

    what: str
    flops: int
    read_bytes: int


class Overlap(NamedTuple):
    """What a kernel does at once; `together`: matrix and exponential units of the same warps or their partners."""

    name: str
    together: bool
    how: str


SERIAL = Overlap("serial", together=False, how="a warp multiplies, then exponentiates; only other warps fill the gaps")


@dataclass(frozen=True, kw_only=True)
class Design:
    """One thread block of a kernel, and its work on one tile."""

    roles: tuple[Role, ...]
    stages: Mapping[str, int]  # buffers of what arrives in turns
    shared: tuple[Entry, ...]
    registers: tuple[Entry, ...]  # of the `holder`, a thread that holds most
    holder: str
    register_limit: int = COMPILED
    tmem: tuple[Entry, ...] = ()
    products: tuple[Product, ...]
    exps: int
    staged: tuple[Entry, ...] = ()  # bytes written to and read from shared memory besides operands
    overlap: tuple[Overlap, ...] = (SERIAL,)
    cluster: int = 1  # thread blocks that share loads or products
    atomic_bytes: int = 0  # added to dQ in HBM per tile
    emulated: Fraction = Fraction(0)  # share of the exponentials that the fp32 units compute
    differs: tuple[str, ...] = ()  # from FlashAttention-2, a sentence each

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * sum(role.warps for role in self.roles)

    @property
    def block_registers(self) -> int:
        """Registers of a block; where the compiler chooses, at least the ledger's, in steps of 8 per thread."""
        least = -(-sum(e.size for e in self.registers) // 8) * 8
        return sum(32 * role.warps * (role.registers or least) for role in self.roles)


Build: TypeAlias = Callable[[Tile, AttentionProblem, Device], Design]


class Family(NamedTuple):
    """A generation of kernels: where it runs, what it takes, and its two passes."""

    title: str
    device: str  # on which it runs if none is named
    capability: tuple[tuple[int, int], tuple[int, int]]  # from, to below
    head_dims: tuple[int, ...]  # others are padded to the next
    dtypes: tuple[str, ...]
    own_value_dim: bool  # V may be narrower or wider than K
    granules: tuple[tuple[int, int], tuple[int, int]]  # tiles are multiples: (rows, keys) forward, backward
    forward: Build
    backward: Build | None


def product(what: str, m: int, n: int, k: int, itemsize: int, *, a: int = 1, b: int | Fraction = 1) -> Product:
    """(m x k) (k x n), whose left operand is read `a` times from shared memory and whose right one `b` times.

    0: it comes from registers or tensor memory; 1/2: the other CTA of a pair reads the other half.
    """
    return Product(what, 2 * m * n * k, int(itemsize * k * (a * m + b * n)))
