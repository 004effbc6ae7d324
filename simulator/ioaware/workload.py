"""A workload is the attention of one model: phases, each a problem that repeats (layers x steps).

`workloads/NAME.toml` holds one model; `load("llama3-70b", "decode", kv_len=131072)` reads it. `[model]` says once what
all phases have in common, each `[[phase]]` the rest: docs/workloads.md. A model of your own is one more file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from . import tables
from .errors import InputError, closest, refuse, shown, unknown
from .masks import Band
from .problem import MASKS, AttentionProblem, check_count

Table: TypeAlias = dict[str, Any]

FOLDER = tables.folder("workloads")
ALL = "all"  # the name that stands for every phase
SHAPE = (
    "heads", "kv_heads", "head_dim", "value_dim", "q_len", "kv_len", "mask", "direction", "softmax_scale", "softcap",
    "alibi", "sink", "shared_kv",
)  # fmt: skip
MODEL_KEYS = ("source", "layers", "steps", "caches", "latent", *SHAPE)
PHASE_KEYS = ("name", *MODEL_KEYS)
LENGTHS = ("length", "q_len", "kv_len")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One attention problem of a model and how often a run computes it."""

    name: str  # "decode"; where layers differ, "decode (window)"
    stage: str  # the file's [[phase]] that it belongs to: "decode"
    source: str  # where the dimensions come from; "unverified" marks what is from memory
    layers: int
    steps: int  # e.g. generated tokens, or flow-matching steps
    problem: AttentionProblem
    caches: bool  # its keys and values stay in the KV cache; otherwise those before its own are found there
    latent: int | None  # elements that are cached per token instead of K and V (multi-head latent attention)

    @property
    def repeats(self) -> int:
        """How many times the problem is computed in one run."""
        return self.layers * self.steps


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model's attention: phases in the order they run."""

    name: str
    title: str
    phases: tuple[Phase, ...]

    @property
    def stages(self) -> dict[str, tuple[Phase, ...]]:
        """The phases by stage: more than one where a model has several kinds of layers."""
        return {s: tuple(p for p in self.phases if p.stage == s) for s in dict.fromkeys(p.stage for p in self.phases)}


def names() -> list[str]:
    """All workloads."""
    return tables.names(FOLDER)


def load(name: str, phase: str | None = None, **overrides: Any) -> Workload:
    """The workload of that name or file.

    phase      one of its phases by name, or "all". Default: the phases of one run, which are those that go forward
    overrides  batch, dtype, kv_dtype, page_size, direction, ... go to every phase's problem; lengths to one phase:
               q_len, kv_len, or `length`: the keys of a phase that reads a cache (decode), the queries of another

    Raises InputError.
    """
    if not name.endswith(".toml") and name.lower() not in names():
        raise unknown("workload", name, names(), "`ioaware list workloads` shows all, or give a .toml file")
    path = name if name.endswith(".toml") else tables.path_of(FOLDER, name)
    check_overrides(overrides)
    table = tables.read(path, "workload")
    try:
        return from_table(tables.file_name(path).removesuffix(".toml"), table, phase, overrides)
    except InputError as e:
        raise InputError(f"{tables.file_name(path)}: {e}") from None


def check_overrides(overrides: Table) -> None:
    """Raises InputError for what no problem takes, so that a wrong override is not blamed on the file."""
    if "length" in overrides:
        check_count("length", overrides["length"])
    AttentionProblem(**{"q_len": 1, **{key: v for key, v in overrides.items() if key != "length"}})


def from_table(name: str, table: Table, phase: str | None, overrides: Table) -> Workload:
    """A workload from a parsed TOML table: `title`, one `[[phase]]` per attention problem, and their `[model]`."""
    _check_keys("", table, ("title", "model", "phase"))
    model, phases = table.get("model", {}), table.get("phase")
    if not isinstance(phases, list) or not phases or "title" not in table:
        raise InputError("a workload needs a title and at least one [[phase]]")
    if not isinstance(table["title"], str):
        raise InputError(f"title={table['title']!r} must be a text")
    if not isinstance(model, dict):
        raise InputError("what the phases have in common is a table: [model]")
    if not all(isinstance(p, dict) for p in phases):
        raise InputError("every phase is a table: [[phase]]")
    _check_keys("model: ", model, MODEL_KEYS)
    merged = [_merged(model, p) for p in phases]
    chosen = _chosen(name, merged, phase)
    if len(chosen) > 1:
        _refuse_lengths([p["name"] for p in merged], overrides)
    found = [p for one in chosen for p in _phases(one, overrides)]
    return Workload(name=name, title=table["title"], phases=tuple(found))


def _check_keys(where: str, table: Table, known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{where}unknown key {key!r}; did you mean {closest(key, known)!r}?")


def _merged(model: Table, phase: Table) -> Table:
    """A phase with what it has from the model; every needed key is there."""
    where = f"phase {phase.get('name', '?')!r}: "
    _check_keys(where, phase, PHASE_KEYS)
    merged = {**model, **phase}
    for key in ("name", "source", "layers", "heads", "head_dim", "q_len"):
        if key not in merged:
            raise InputError(f"{where}the key {key!r} is missing")
    for key in ("name", "source"):
        if not isinstance(merged[key], str):
            raise InputError(f"{where}{key}={merged[key]!r} must be a text")
    return merged


def _chosen(name: str, phases: list[Table], phase: str | None) -> list[Table]:
    if phase == ALL:
        return phases
    if phase is None:
        return [p for p in phases if p.get("direction", "fwd") == "fwd"] or phases
    found = [p for p in phases if p["name"] == phase]
    if not found:
        known = [p["name"] for p in phases]
        raise unknown("phase", phase, known, f"{name} has {', '.join(known)}, or {ALL}")
    return found


def _refuse_lengths(phases: list[str], overrides: Table) -> None:
    """A length means something else in every phase: a prompt, a context, an image."""
    for key in LENGTHS:
        if key in overrides:
            known = " or ".join(phases)
            raise InputError(f"{key}={shown(overrides[key])}: every phase has its own lengths; name one phase, {known}")


def _phases(table: Table, overrides: Table) -> list[Phase]:
    """One phase, or one per kind of layers."""
    stage, kinds = table["name"], table["layers"]
    try:
        if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, dict) for kind in kinds):
            return [_phase(table, stage, overrides)]
        return [_phase(_of_kind(table, kind), stage, overrides) for kind in kinds]
    except InputError as e:
        raise InputError(f"phase {stage!r}: {e}") from None


def _of_kind(table: Table, kind: Table) -> Table:
    _check_keys("layers: ", kind, PHASE_KEYS)
    if not isinstance(kind.get("name"), str) or "layers" not in kind:
        raise InputError("every kind of layers has a name and a number: { name = ..., layers = ... }")
    return {**table, **kind, "name": f"{table['name']} ({kind['name']})"}


def _phase(table: Table, stage: str, overrides: Table) -> Phase:
    shape = {key: table[key] for key in SHAPE if key in table}
    if isinstance(shape.get("mask"), str) and shape["mask"] not in MASKS:
        from .masks.parse import parse_mask

        shape["mask"] = parse_mask(shape["mask"], "mask")
    problem = AttentionProblem(**{**shape, **_lengths(table, overrides)})
    causal = isinstance(problem.band, Band) and problem.band.right == 0
    caches = table.get("caches", causal)  # keys of causal attention do not change any more
    if not isinstance(caches, bool):
        raise refuse("caches", caches, "whether the keys stay in the KV cache", "true")
    return Phase(
        name=table["name"],
        stage=stage,
        source=table["source"],
        layers=check_count("layers", table["layers"]),
        steps=check_count("steps", table.get("steps", 1)),
        problem=problem,
        caches=caches and problem.direction == "fwd",
        latent=check_count("latent", table["latent"]) if "latent" in table else None,
    )


def _lengths(table: Table, overrides: Table) -> Table:
    """The overrides, with `length` as the one of q_len and kv_len that it means here."""
    given = {key: v for key, v in overrides.items() if key != "length"}
    if "length" in overrides:
        given["kv_len" if "kv_len" in table else "q_len"] = overrides["length"]
    if "kv_len" in given and "kv_len" not in table and "q_len" not in given:
        keys = f"its keys are those of its {shown(table['q_len'])} queries"
        raise InputError(f"kv_len={shown(given['kv_len'])}: {keys}; give length (--N), or q_len too, for a chunk")
    return given
