"""The algorithms, one file each; this table is the only list: the command line and the tests read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import InputError, unknown
from . import (
    eager,
    flash1,
    flash2,
    flash4,
    flash_decoding,
    fused_softmax,
    linear,
    memory_efficient,
    naive,
    serpentine,
    split_kv,
)


@dataclass(frozen=True)
class Algorithm:
    """An algorithm: its two texts, and what it is named after."""

    name: str
    title: str
    forward: Callable[..., None]
    backward: Callable[..., None] | None
    papers: tuple[str, ...] = ()  # keys of cite.PAPERS
    library_kernels: bool = False  # whole-matrix kernels of a library: no tile of ours fits them into SRAM
    unsplit: Callable[..., None] | None = None  # the forward text that runs instead where the keys are not split
    softmax: bool = True  # computes softmax attention; otherwise something else, linear attention

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
        "flash3", "FlashAttention-3: the program of flash2, other tiles; what overlaps: ioaware pipeline flash3",
        flash2.flash2, flash2.flash2_backward, papers=("flash3",),
    ),
    Algorithm(
        "flash4", "FlashAttention-4: two query tiles to a block, lazy rescaling; backward by pairs of CTAs",
        flash4.flash4, flash4.flash4_backward, papers=("flash4",),
    ),
    Algorithm(
        "flash_decoding", "Flash-Decoding: keys split among blocks (--splits), partial results combined; forward only",
        flash_decoding.flash_decoding, None, papers=("flash_decoding",), unsplit=flash2.flash2,
    ),
    Algorithm(
        "mla", "latent attention, absorbed: one cached row is key and value, read once, split; forward only",
        flash_decoding.mla, None, papers=("mla",), unsplit=flash_decoding.mla_unsplit,
    ),
    Algorithm(
        "split_kv", "one thread block per key tile for all queries, partial results combined; forward only",
        split_kv.split_kv, None, papers=("flash_decoding",),
    ),
    Algorithm(
        "linear_recurrent", "linear attention token by token, its state in HBM; not softmax attention; forward only",
        linear.linear_recurrent, None, papers=("linear",), softmax=False,
    ),
    Algorithm(
        "linear_chunkwise", "linear attention in chunks, its state on chip; not softmax attention; forward only",
        linear.linear_chunkwise, None, papers=("linear",), softmax=False,
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
