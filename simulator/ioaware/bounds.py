"""What no algorithm can beat: compulsory traffic, the proved lower bound, and published bounds, labelled as such."""

from __future__ import annotations

from typing import NamedTuple

from .problem import AttentionProblem
from .traffic import Moved, Traffic


class LowerBound(NamedTuple):
    """A lower bound on the bytes that any exact algorithm must read with this SRAM, and which argument gives it."""

    issued_read_bytes: int
    binds: str  # "io": 2 d^2 |E| / M - M; "compulsory": every input that matters is read once
    memory_words: int  # M


class Published(NamedTuple):
    """A bound of the literature, words: not machine-checked here."""

    name: str
    words: int
    source: str


def compulsory(problem: AttentionProblem, direction: str) -> Traffic:
    """Bytes of one pass if every needed input is read once and every output written once: a floor at every level.

    Query rows that see no key, and keys that no query sees, need not be read. Backward: Q, K, V, dO to dQ, dK, dV.
    """
    seen_q = seen_kv = rows_q = rows_kv = 0
    for (q_len, kv_len), n in problem.lengths():
        a, b = problem.band.seen_rows(q_len, kv_len)
        seen_q, seen_kv = seen_q + n * a, seen_kv + n * b
        rows_q, rows_kv = rows_q + n * q_len, rows_kv + n * kv_len
    width, d, dv = problem.itemsize("io"), problem.head_dim, problem.value_dim or 1
    q, kv = problem.heads * width, (problem.kv_heads or 1) * width
    tensors = {"Q": Moved(q * seen_q * d), "K": Moved(kv * seen_kv * d), "V": Moved(kv * seen_kv * dv)}
    if problem.padding:
        tensors["padding"] = Moved(seen_kv * width)
    if direction == "fwd":
        return Traffic({**tensors, "O": Moved(0, q * rows_q * dv)})
    gradients = {"dQ": q * rows_q * d, "dK": kv * rows_kv * d, "dV": kv * rows_kv * dv}
    return Traffic({**tensors, "dO": Moved(q * seen_q * dv), **{n: Moved(0, b) for n, b in gradients.items()}})


def memory_words(problem: AttentionProblem, sram_bytes: int) -> int:
    """M: how many words the fast memory holds at most, counted in the narrowest format of the problem."""
    return sram_bytes // _width(problem)


def _width(problem: AttentionProblem) -> int:
    return min(problem.itemsize(role) for role in ("io", "score", "accum"))


def io_bound_words(pairs: int, d: int, memory: int) -> int:
    """Loads of one fast memory of `memory` words: 2 d^2 |E| <= (loads + M) max(M, 4 d^2), E the visible pairs.

    With M >= 4 d^2: loads >= 2 d^2 |E| / M - M. Any order, any recomputation, any partial sums; only loads are charged.
    It rules out neither approximation nor algebraic shortcuts such as Strassen's. May be negative: then it is void.
    """
    return -(-2 * d * d * pairs // max(memory, 4 * d * d)) - memory


def lower_bound(problem: AttentionProblem, direction: str, sram_bytes: int) -> LowerBound:
    """The greater of compulsory reads and the I/O bound for one pass, bytes.

    The I/O bound is about the forward pass: a backward pass may read saved scores. A program's thread blocks run one
    after another on one SM with the same loads, so the bound holds for its issued reads on any number of SMs.
    If value_dim differs from head_dim the smaller one counts: the remaining columns are given for free.
    """
    floor, memory = compulsory(problem, direction).read_bytes, memory_words(problem, sram_bytes)
    if direction == "fwd":
        d = min(problem.head_dim, problem.value_dim or 1)
        io = io_bound_words(problem.pairs(), d, memory) * _width(problem)
        if io > floor:
            return LowerBound(io, "io", memory)
    return LowerBound(floor, "compulsory", memory)


def published(problem: AttentionProblem, sram_bytes: int) -> list[Published]:
    """The literature's forward bounds with the constants that their own proofs give; dense masks only."""
    from math import isqrt

    m, d, pairs = memory_words(problem, sram_bytes), problem.head_dim, problem.pairs()
    saha_ye = "Saha, Ye 2024 (arXiv 2402.07443)"
    out = [
        Published(
            "any matrix multiplication, min(N²d²/8M, N²/8) - M",
            max(0, min(pairs * d * d // (8 * m), pairs // 8) - m),
            f"{saha_ye}, theorem 4.8; constant extracted from its proof",
        )
    ]
    if m >= d * d:
        words, name = pairs * d * d // (m + 4 * d * d) - m, "N²d²/(M + 4d²) - M"
        return [Published(name, max(0, words), f"{saha_ye}, theorem 3.4; constant extracted from its proof"), *out]
    words = 2 * pairs * d // (isqrt(m) + 1) - 2 * m - pairs
    source = f"{saha_ye}, theorem 3.7, with the constant of Smith et al. 2017 (arXiv 1702.02017); unverified"
    return [Published("2N²d/√M - 2M - N², for M < d²", max(0, words), source), *out]
