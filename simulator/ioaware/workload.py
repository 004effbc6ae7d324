"""A workload is the attention of one model run: phases, each a problem that repeats (layers x steps).

`workloads/NAME.toml` holds one model; `load("pi0")` reads it. A model of your own is one more file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import tables
from .errors import InputError, closest, unknown
from .problem import AttentionProblem, check_count

FOLDER = tables.folder("workloads")
PHASE_KEYS = (
    "name", "source", "layers", "steps", "heads", "kv_heads", "head_dim", "value_dim", "q_len", "kv_len", "mask",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One attention problem of a model and how often a run computes it."""

    name: str
    source: str  # where the dimensions come from; "unverified" marks what is from memory
    layers: int
    steps: int  # e.g. generated tokens, or flow-matching steps
    problem: AttentionProblem

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


def names() -> list[str]:
    """All workloads."""
    return tables.names(FOLDER)


def load(name: str, **overrides: Any) -> Workload:
    """The workload of that name or file; `overrides` (batch, dtype, direction, ...) go to every phase's problem."""
    if not name.endswith(".toml") and name.lower() not in names():
        raise unknown("workload", name, names(), "`ioaware list workloads` shows all, or give a .toml file")
    path = name if name.endswith(".toml") else tables.path_of(FOLDER, name)
    AttentionProblem(**{"q_len": 1, **overrides})  # so that a wrong override is not blamed on the file
    table = tables.read(path, "workload")
    try:
        return from_table(tables.file_name(path).removesuffix(".toml"), table, overrides)
    except InputError as e:
        raise InputError(f"{tables.file_name(path)}: {e}") from None


def from_table(name: str, table: dict[str, Any], overrides: dict[str, Any]) -> Workload:
    """A workload from a parsed TOML table: `title` and one `[[phase]]` per attention problem."""
    for key in table:
        if key not in ("title", "phase"):
            raise InputError(f"unknown key {key!r}; did you mean {closest(key, ('title', 'phase'))!r}?")
    phases = table.get("phase")
    if not isinstance(phases, list) or not phases or "title" not in table:
        raise InputError("a workload needs a title and at least one [[phase]]")
    if not isinstance(table["title"], str):
        raise InputError(f"title={table['title']!r} must be a text")
    if not all(isinstance(phase, dict) for phase in phases):
        raise InputError("every phase is a table: [[phase]]")
    return Workload(name=name, title=table["title"], phases=tuple(_phase(p, overrides) for p in phases))


def _phase(table: dict[str, Any], overrides: dict[str, Any]) -> Phase:
    for key in table:
        if key not in PHASE_KEYS:
            near = closest(key, PHASE_KEYS)
            raise InputError(f"phase {table.get('name', '?')!r}: unknown key {key!r}; did you mean {near!r}?")
    for key in ("name", "source", "layers", "heads", "head_dim", "q_len"):
        if key not in table:
            raise InputError(f"phase {table.get('name', '?')!r}: the key {key!r} is missing")
    for key in ("name", "source"):
        if not isinstance(table[key], str):
            raise InputError(f"phase {table['name']!r}: {key}={table[key]!r} must be a text")
    shape = {key: v for key, v in table.items() if key not in ("name", "source", "layers", "steps")}
    try:
        return Phase(
            name=table["name"],
            source=table["source"],
            layers=check_count("layers", table["layers"]),
            steps=check_count("steps", table.get("steps", 1)),
            problem=AttentionProblem(**{**shape, **overrides}),
        )
    except InputError as e:
        raise InputError(f"phase {table['name']!r}: {e}") from None
