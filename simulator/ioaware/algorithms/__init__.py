"""The algorithms, one file each; this table is the only list: the command line and the tests read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import InputError, unknown
from . import eager, flash1, flash2, fused_softmax, memory_efficient, naive, serpentine, split_kv


@dataclass(frozen=True)
class Algorithm:
    """An algorithm: its two texts, and what it is named after."""

    name: str
    title: str
    forward: Callable[..., None]
    backward: Callable[..., None] | None
    papers: tuple[str, ...] = ()  # keys of cite.PAPERS
    library_kernels: bool = False  # whole-matrix kernels of a library: no tile of ours fits them into SRAM

    def text(self, direction: str) -> Callable[..., None]:
        """The function of a pass, `fwd` or `bwd`."""
        function = self.forward if direction == "fwd" else self.backward
        if function is None:
            mend = "" if self in ALGORITHMS else f"define {self.name}_backward, or "
            raise InputError(f"{self.name} has no backward pass: {mend}use --direction fwd")
        return function


ALGORITHMS = (
    Algorithm(
        "naive", "standard attention, three kernels", naive.naive, naive.naive_backward,
        papers=("flash1",), library_kernels=True,
    ),
    Algorithm(
        "eager", "eager PyTorch, one kernel per operator", eager.eager, eager.eager_backward,
        papers=("flash1",), library_kernels=True,
    ),
    Algorithm(
        "safe_softmax", "three kernels, streaming three-pass softmax",
        fused_softmax.safe_softmax, fused_softmax.fused_softmax_backward,
        papers=("online_softmax",), library_kernels=True,
    ),
    Algorithm(
        "online_softmax", "three kernels, streaming two-pass softmax",
        fused_softmax.online_softmax, fused_softmax.fused_softmax_backward,
        papers=("online_softmax",), library_kernels=True,
    ),
    Algorithm(
        "memory_efficient", "Rabe-Staats chunks, partial results combined at the end",
        memory_efficient.memory_efficient, memory_efficient.memory_efficient_backward, papers=("memory_efficient",),
    ),
    Algorithm(
        "flash1", "FlashAttention: key tiles outside, O makes round trips",
        flash1.flash1, flash1.flash1_backward, papers=("flash1",),
    ),
    Algorithm(
        "flash2", "FlashAttention-2: query tiles outside, O written once; backward with atomic dQ",
        flash2.flash2, flash2.flash2_backward, papers=("flash2",),
    ),
    Algorithm(
        "flash2_no_atomics", "FlashAttention-2 with a two-kernel backward pass that needs no atomics",
        flash2.flash2, flash2.flash2_backward_two_kernels, papers=("flash2",),
    ),
    Algorithm(
        "flash2_serpentine", "FlashAttention-2 in one thread block per head, keys walked back and forth; forward only",
        serpentine.flash2_serpentine, None, papers=("flash2",),
    ),
    Algorithm(
        "split_kv", "Flash-Decoding: one thread block per key tile, partial results combined; forward only",
        split_kv.split_kv, None, papers=("flash_decoding",),
    ),
)  # fmt: skip
DEFAULT = ("naive", "flash1", "flash2")


def find(name: str) -> Algorithm:
    """The algorithm of that name; raises InputError with the nearest name."""
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            return algorithm
    raise unknown("algorithm", name, [a.name for a in ALGORITHMS], "`ioaware list algorithms` shows all")


def find_all(names: Iterable[str]) -> tuple[Algorithm, ...]:
    """Several algorithms, in the order given, each once."""
    return tuple(find(name) for name in dict.fromkeys(names))
