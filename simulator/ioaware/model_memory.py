"""How much memory the attention of a model needs: its KV cache and its activations, per layer and in all, exact bytes.

Weights, and activations outside of attention, are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from .masks import Band
from .problem import AttentionProblem
from .readers.footprint import footprint
from .units import show_bytes

if TYPE_CHECKING:
    from .report import AlgorithmReport, WorkloadReport
    from .workload import Phase

SCALE_BYTES = 4  # fp32


# ---------------------------------------------------------------------------------------------------- KV cache
@dataclass(frozen=True)
class Cache:
    """Bytes of a KV cache, of one layer or of several together."""

    token_bytes: int  # a token of one sequence
    sequence_bytes: int  # the longest sequence
    total_bytes: int  # all sequences, and the scales that they share
    page_waste_bytes: int  # of that, rows of pages that no query sees any more, or none has filled yet

    def __add__(self, other: Cache) -> Cache:
        return Cache(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def __mul__(self, layers: int) -> Cache:
        return Cache(*(layers * x for x in self._values()))

    def _values(self) -> tuple[int, ...]:
        return self.token_bytes, self.sequence_bytes, self.total_bytes, self.page_waste_bytes


def cache_of(phase: Phase) -> Cache | None:
    """The KV cache of one layer when the phase has run; None where no key outlives a phase.

    A window needs its last keys only; of paged keys, the pages that hold one of them. Block tables are not counted.
    """
    problem = phase.problem
    cached = [(kv_len if phase.caches else max(kv_len - q_len, 0), n) for (q_len, kv_len), n in problem.lengths()]
    if not any(kv_len for kv_len, _ in cached):
        return None
    needed, held = ([(_rows(problem, kv_len, page), n) for kv_len, n in cached] for page in (1, problem.page_size or 1))
    heads, elements = _cached_rows(phase)
    scales = SCALE_BYTES * len(elements) if problem.kv_dtype else 0
    token = heads * (sum(-(-n * problem.kv_bits // 8) for n in elements) + scales * (problem.kv_scales == "token"))
    total = sum(n * rows for rows, n in held)
    return Cache(
        token,
        max(rows for rows, _ in held) * token,
        total * token + scales * {"tensor": 1, "head": heads, "token": 0}[problem.kv_scales],
        (total - sum(n * rows for rows, n in needed)) * token,
    )


def _rows(problem: AttentionProblem, kv_len: int, page: int) -> int:
    """The rows of the pages that hold a key of `kv_len` that the last query sees."""
    mask = problem.band
    first = max(kv_len - 1 - mask.left, 0) if isinstance(mask, Band) and mask.left is not None else 0
    return (-(-kv_len // page) - first // page) * page


def _cached_rows(phase: Phase) -> tuple[int, tuple[int, ...]]:
    """How many key/value heads are cached, and the elements of each row that a token adds to one of them."""
    problem = phase.problem
    if phase.latent is not None:
        return 1, (phase.latent,)
    assert problem.kv_heads is not None
    assert problem.value_dim is not None
    return problem.kv_heads, (problem.head_dim,) if problem.shared_kv else (problem.head_dim, problem.value_dim)


# ---------------------------------------------------------------------------------------------------- activations
class Activations(NamedTuple):
    """Bytes of the tensors that an algorithm writes to HBM: what attention needs besides its inputs."""

    saved_bytes: int  # kept from the forward pass until the backward pass reads them
    peak_bytes: int  # all of them at once


def activations_of(algorithm: AlgorithmReport, problem: AttentionProblem) -> Activations:
    """Of one layer: standard attention writes S, P and O, FlashAttention O and L, a backward pass gradients."""
    sizes: dict[str, int] = {}
    written: dict[str, set[str]] = {"fwd": set(), "bwd": set()}
    read: dict[str, set[str]] = {"fwd": set(), "bwd": set()}
    for one in algorithm.passes:
        moved = one.totals.levels["issued"].tensors
        written[one.direction] = {name for name, m in moved.items() if m.write_bytes}
        read[one.direction] = {name for name, m in moved.items() if m.read_bytes}
        whole = footprint(one.program, problem, one.schedule.tiles)
        sizes |= {name: whole[name] for name in written[one.direction]}
    saved = (written["fwd"] & read["bwd"]) - written["bwd"]
    return Activations(sum(sizes[name] for name in saved), sum(sizes.values()))


# ---------------------------------------------------------------------------------------------------- models
@dataclass(frozen=True)
class LayerMemory:
    """What one layer of a phase needs."""

    phase: Phase
    cache: Cache | None
    activations: Mapping[str, Activations]  # by algorithm


@dataclass(frozen=True)
class StageMemory:
    """What a stage of a workload needs over all its layers."""

    stage: str
    kinds: tuple[LayerMemory, ...]  # one, or one per kind of layers

    @property
    def layers(self) -> int:
        """Layers of all kinds."""
        return sum(kind.phase.layers for kind in self.kinds)

    @property
    def cache(self) -> Cache | None:
        """The KV cache of all layers."""
        found = [kind.cache * kind.phase.layers for kind in self.kinds if kind.cache]
        return reduce(Cache.__add__, found) if found else None

    @property
    def activations(self) -> dict[str, Activations]:
        """By algorithm: all layers keep what they saved, and one at a time, the largest, has everything."""
        out = {}
        for name in self.kinds[0].activations:
            each = [(kind.activations[name], kind.phase.layers) for kind in self.kinds]
            saved = sum(layers * a.saved_bytes for a, layers in each)
            out[name] = Activations(saved, saved + max(a.peak_bytes - a.saved_bytes for a, _ in each))
        return out

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: all layers together, and one layer of each kind."""
        kinds = [
            {"phase": kind.phase.name, "layers": kind.phase.layers, **_dict(kind.cache, kind.activations)}
            for kind in self.kinds
        ]
        return {"stage": self.stage, "layers": self.layers, **_dict(self.cache, self.activations), "per_layer": kinds}


def _dict(cache: Cache | None, activations: Mapping[str, Activations]) -> dict[str, Any]:
    by_algorithm = {name: a._asdict() for name, a in activations.items()}
    return {"kv_cache": asdict(cache) if cache else None, "activations": by_algorithm}


def memory(report: WorkloadReport) -> list[StageMemory]:
    """The memory of every stage of a simulated workload, in order."""
    kinds = []
    for phase, one in zip(report.workload.phases, report.phases, strict=True):
        needed = {name: activations_of(a, one.problem) for name, a in one.algorithms.items()}
        kinds.append(LayerMemory(phase, cache_of(phase), needed))
    return [
        StageMemory(stage, tuple(kind for kind in kinds if kind.phase.stage == stage))
        for stage in report.workload.stages
    ]


def summary(stage: StageMemory) -> list[str]:
    """What people read: the KV cache if there is one, and the activations."""
    layers, cache = f"{stage.layers} layers", stage.cache
    out = []
    if cache:
        each = [f"{show_bytes(k.cache.total_bytes)} per {_layer(k)}" for k in stage.kinds if k.cache]
        waste = f", {show_bytes(cache.page_waste_bytes)} of it unused in pages" if cache.page_waste_bytes else ""
        text = f"{', '.join(each)}, {show_bytes(cache.total_bytes)} in {layers}{waste}"
        out.append(f"KV cache     {text}; {cache.token_bytes:,} B per token")
    largest = {n: max(kind.activations[n].peak_bytes for kind in stage.kinds) for n in stage.activations}
    saves = any(a.saved_bytes for a in stage.activations.values())
    out.append(f"activations  {_each(largest)} in one layer" + ("" if saves else ", reused"))
    if saves:
        total = {name: a.peak_bytes for name, a in stage.activations.items()}
        out.append(f"             {_each(total)} in {layers}: each keeps what its backward pass reads")
    return out


def _each(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {show_bytes(size)}" for name, size in sizes.items())


def _layer(kind: LayerMemory) -> str:
    """`layer`, or `window layer`."""
    return f"{kind.phase.name.removeprefix(kind.phase.stage).strip(' ()')} layer".strip()
