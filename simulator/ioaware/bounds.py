"""What no algorithm can beat: compulsory traffic, the proved lower bounds, and published bounds, labelled as such."""

from __future__ import annotations

from typing import NamedTuple

from .problem import AttentionProblem
from .traffic import Moved, Traffic


class LowerBound(NamedTuple):
    """What any exact algorithm must read, and must read and write together, with this fast memory, bytes."""

    issued_read_bytes: int
    issued_bytes: int
    binds: str  # what gives issued_bytes: traffic | loads | small_memory | compulsory
    theorem: str  # the proof of it, for `ioaware prove`
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
    tensors = {"Q": Moved(q * seen_q * d), **_cache(problem, seen_kv), **_scores(problem, seen_kv)}
    if direction == "fwd":
        return Traffic({**tensors, "O": Moved(0, q * rows_q * dv)})
    gradients = {"dQ": q * rows_q * d, "dK": kv * rows_kv * d, "dV": kv * rows_kv * dv}
    return Traffic({**tensors, "dO": Moved(q * seen_q * dv), **{n: Moved(0, b) for n, b in gradients.items()}})


def _cache(problem: AttentionProblem, seen_kv: int) -> dict[str, Moved]:
    """Keys and values as they are stored, their scales, and the block table's entries of the pages they fill."""
    heads, out = problem.kv_heads or 1, {}
    dims = {"K": problem.head_dim} if problem.shared_kv else {"K": problem.head_dim, "V": problem.value_dim or 1}
    scales = {"tensor": 1, "head": heads, "token": heads * seen_kv}[problem.kv_scales]
    for name, columns in dims.items():
        out[name] = Moved(heads * seen_kv * -(-columns * problem.kv_bits // 8))
        if problem.kv_dtype:
            out[f"{name}_scale"] = Moved(scales * problem.itemsize("stat"))
    if problem.page_size:
        out["block_table"] = Moved(-(-seen_kv // problem.page_size) * problem.itemsize("index"))
    return out


def _scores(problem: AttentionProblem, seen_kv: int) -> dict[str, Moved]:
    """What is read to change scores: padding, a number per head for ALiBi and sinks, every visible entry of a bias."""
    width, per_head = problem.itemsize("io"), Moved(problem.heads * problem.pack * problem.itemsize("stat"))
    out = {"padding": Moved(seen_kv * width)} if problem.padding else {}
    if problem.alibi:
        out["slopes"] = per_head
    if problem.sink:
        out["sink"] = per_head
    if problem.bias:
        heads, sequences = problem.heads if problem.bias.heads else 1, 1 if problem.bias.batch else problem.batch
        out["bias"] = Moved(heads * problem.pairs() // problem.heads // sequences * width)
    return out


def memory_words(problem: AttentionProblem, sram_bytes: int) -> int:
    """M: how many words the fast memory holds at most, counted in the narrowest format of the problem; at least 1."""
    return max(1, 8 * sram_bytes // _width(problem))


def _width(problem: AttentionProblem) -> int:
    """Bits of the narrowest word."""
    return min(problem.kv_bits, *(8 * problem.itemsize(role) for role in ("io", "score", "accum")))


def _bytes(words: int, problem: AttentionProblem) -> int:
    """The least bytes of so many words."""
    return -(-words * _width(problem) // 8)


def io_bound_words(pairs: int, work: int, memory: int) -> int:
    """The least l with `work |E| <= (l + M) max(M, 2 work)`: for M >= 2 work, work |E| / M - M, rounded up.

    |E| are the visible pairs, M = `memory` words, and `work` per pair is

    - d (d + d_v)   for the loads of the forward pass    (proofs: attention_lower_bound_dims)
    - (d + d_v)^2   for its loads and stores together    (narrow_traffic_lower_bound; 4 d d_v for d_v > d:
                                                          total_traffic_lower_bound)
    - (d + d_v)^2   for the loads of the backward pass   (backward_lower_bound_dims)

    Any order, any recomputation, any partial sums; saved scores may be read. It rules out neither approximation nor
    algebraic shortcuts such as Strassen's. It is weak for M < 2 work, and may be negative: then it is void.
    """
    return -(-work * pairs // max(memory, 2 * work)) - memory


def small_memory_words(pairs: int, d: int, memory: int) -> int:
    """Loads and stores of a forward pass, by multiplications of Q K^T alone: 2 |E| d / sqrt(M) - |E| - 2 M, rounded up.

    For M < d^2 it is the greatest bound (proofs: small_memory_lower_bound); from M = 4 d^2 on it is void.
    """
    from math import isqrt

    squared = -(-4 * (pairs * d) ** 2 // memory)
    return (isqrt(squared - 1) + 1 if squared else 0) - pairs - 2 * memory


def lower_bound(problem: AttentionProblem, direction: str, sram_bytes: int, *, softmax: bool = True) -> LowerBound:
    """The greatest of what is proved and what is compulsory, for one pass; without `softmax` only the compulsory.

    A program's thread blocks run one after another on one SM with the same traffic, so a bound for one fast memory
    holds for the issued bytes of any number of SMs (proofs: Parallel.v).
    """
    floor, memory = compulsory(problem, direction), memory_words(problem, sram_bytes)
    d, dv, pairs = problem.head_dim, problem.value_dim or 1, problem.pairs()
    reads, together = floor.read_bytes, {"compulsory": floor.total_bytes}
    if not softmax:
        return LowerBound(reads, floor.total_bytes, "compulsory", "", memory)
    if not problem.shared_kv:  # in the proofs no word of V is one of K
        work = d * (d + dv) if direction == "fwd" else (d + dv) ** 2
        loads = _bytes(io_bound_words(pairs, work, memory), problem)
        reads = max(loads, reads)
        together["loads"] = loads + floor.write_bytes
    if direction == "fwd":
        together["small_memory"] = _bytes(small_memory_words(pairs, d, memory), problem)
    if direction == "fwd" and not problem.shared_kv:
        work = (d + dv) ** 2 if dv <= d else 4 * d * dv
        together["traffic"] = _bytes(io_bound_words(pairs, work, memory), problem)
    binds = max(together, key=lambda what: together[what])
    return LowerBound(reads, together[binds], binds, theorem(direction, binds, narrow=dv <= d), memory)


def theorem(direction: str, binds: str, *, narrow: bool) -> str:
    """The proof of a bound; `narrow`: d_v <= d."""
    if direction == "bwd":
        return "parallel_backward_lower_bound" if binds == "loads" else "parallel_backward_compulsory_loads"
    if binds == "traffic":
        return f"parallel_{'narrow' if narrow else 'total'}_traffic_lower_bound"
    return "small_memory_lower_bound" if binds == "small_memory" else "parallel_combined_lower_bound"


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
    source = f"{saha_ye}, theorem 3.7, with the constant of Smith et al. 2017 (arXiv 1702.02017)"
    return [Published("2N²d/√M - 2M - N², for M < d²", max(0, words), source), *out]
