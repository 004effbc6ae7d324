"""The page docs/variants.md: what the project can say of every variant. Each cell is checked before it is written.

    python -m ioaware.variants > docs/variants.md

Every program runs every variant on a small problem: its values are held against float64 attention, what it moved
against the closed forms. Whoever refuses says why, in his own words. A claim that does not hold raises
VerificationError, and there is no page.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from . import masks as m
from .algorithms import ALGORITHMS, Algorithm, find
from .bounds import lower_bound
from .cli.options import problem as problem_of
from .cli.simulate import simulate as command
from .dtypes import FLOATS
from .errors import InputError, VerificationError
from .kv_cache import BITS
from .parallel import SCHEMES, Scheme
from .parallel.count import count as count_devices
from .parallel.verify import verify
from .precision.formats import FORMATS
from .precision.measure import inputs as precision_inputs
from .precision.measure import measured
from .precision.methods import METHODS
from .problem import KV_SCALES, AttentionProblem
from .program.attention import GRADIENTS
from .program.recorder import record
from .program_file import TOLERANCE
from .readers.count import count, has_closed_form
from .readers.evaluate import TileSizes
from .readers.execute import execute
from .readers.onchip import on_chip
from .reference import Arrays, attention, linear_attention, random_inputs

HEAD = """# Variants, and what is known of each

<!-- Written by `python -m ioaware.variants > docs/variants.md`; change simulator/ioaware/variants.py instead. -->

Each cell was checked as this page was written, most of them on a small ragged problem:

- **values**: how many programs compute it. Each was executed in float64, and its O is that of float64 attention, to
  {tolerance:g}. Where some do not, [n] says why; the last table says which.
- **counts**: the bytes that closed forms count are those that each execution moved, tensor by tensor.
- **formula**: all of these programs have closed forms, so that counting takes microseconds at any length.
- **bound**: the theorem that gives the greatest floor for N = 8,192 in a fast memory that holds tiles of 128 x 64, and
  what the program moves is not below it; `ioaware prove NAME` shows the theorem.
- **backward**: how many programs compute the gradients of those that compute any, checked in the same way.
"""
SMALL: dict[str, Any] = {
    "q_len": 4, "kv_len": 9, "batch": 1, "heads": 1, "kv_heads": 1, "head_dim": 3, "value_dim": 3,
    "dtype": "fp64", "score_dtype": "fp64", "accum_dtype": "fp64",
}  # fmt: skip
TILES, LARGE_TILES = TileSizes(3, 2, 2), TileSizes(128, 64)
COLUMNS = ("values", "counts", "formula", "bound", "backward")
Row: TypeAlias = list[str]


class Variant(NamedTuple):
    """A variant, how people ask for it, and two problems of it."""

    name: str
    how: str
    large: AttentionProblem
    small: AttentionProblem


# ------------------------------------------------------------------------------------------------ what there is
def asked(name: str, options: str, **small: Any) -> Variant:
    """A variant that `simulate` has options for; its small problem has other numbers."""
    values = command.make_context("simulate", shlex.split(options)).params
    found = _variant(name, options, problem_of(values), small)
    return found._replace(large=found.large.packed(), small=found.small.packed()) if values["pack_gqa"] else found


def written(name: str, how: str, fields: dict[str, Any], **small: Any) -> Variant:
    """A variant of which only the Python interface has all."""
    return _variant(name, how, AttentionProblem(**{"q_len": 8192, **fields}), small)


def _variant(name: str, how: str, large: AttentionProblem, small: dict[str, Any]) -> Variant:
    return Variant(name, f"`{how}`", large, replace(large, **{**SMALL, **small}))


def columns(q: Any, k: Any) -> Any:
    """A function for a mask: causal, and of the keys two of every four."""
    return (k <= q + 5) & (k // 2 % 2 == 0)


def checkered(q_len: int, kv_len: int, block: int) -> m.Blocks:
    """Every second block."""
    matrix = np.indices((-(-q_len // block), -(-kv_len // block))).sum(axis=0) % 2
    return m.Blocks.of_matrix(matrix, block, block)


def masks() -> Iterator[Variant]:
    """One of every kind; the small ones have gaps where the large ones do."""
    documents, large, small = m.Documents((4, 5)), checkered(8192, 8192, 64), checkered(4, 9, 2)
    yield asked("full", "--mask full")
    yield asked("causal", "--causal")
    yield asked("causal, aligned top-left", "--mask causal-top-left")
    yield asked("sliding window", "--window 1023,0", mask=m.window(2, 0))
    yield asked("attention sinks", "--mask sinks:4,1024", mask=m.Sinks(1, 2))
    yield asked("prefix language model", "--mask prefix:256", mask=m.Prefix(3))
    yield asked("Longformer", "--mask longformer:256,1", mask=m.Longformer(1, 1))
    yield asked("chunks (Llama 4)", "--mask chunks:1024", mask=m.Chunks(3))
    yield asked("Sparse Transformer, fixed", "--mask fixed:128,32", mask=m.Fixed(4, 1))
    yield asked("Sparse Transformer, strided", "--mask strided:32,4", mask=m.Strided(1, 4))
    yield asked("BigBird", "--mask bigbird:64", mask=m.BigBird(1, 1, 1, 1))
    yield asked("documents", "--mask documents:8000,192", mask=documents)
    yield asked("documents, causal", "--mask documents:8000,192+causal", mask=documents.causal())
    yield written("blocks", "mask=Blocks.of_matrix(matrix, 64, 64)", {"mask": large}, mask=small)
    yield written("any function", "mask=Custom(f)", {"q_len": 512, "mask": m.Custom(columns)})


def heads() -> Iterator[Variant]:
    """How query heads share keys, and how long rows are."""
    yield asked("multi-head", "--heads 32", heads=2, kv_heads=2)
    yield asked("grouped-query", "--heads 32 --kv-heads 8", heads=4, kv_heads=2)
    yield asked("multi-query", "--heads 32 --kv-heads 1", heads=2)
    yield asked("packed groups", "--heads 32 --kv-heads 8 --pack-gqa", heads=2)
    yield asked("latent cache (MLA)", "--heads 128 --kv-heads 1 --d 576 --d-v 512 --latent", heads=2, value_dim=2)
    yield asked("values shorter than keys", "--d 192 --d-v 128", value_dim=2)
    yield asked("values longer than keys", "--d 64 --d-v 128", value_dim=5)


def scores() -> Iterator[Variant]:
    """What is done to scores."""
    two = {"heads": 2, "kv_heads": 2}
    yield written("another scale", "softmax_scale=0.1", {"softmax_scale": 0.1})
    yield asked("soft cap", "--softcap 50", softcap=1.0)
    yield asked("ALiBi", "--alibi", **two)
    yield asked("bias", "--bias full", **two)
    yield asked("bias, one for all heads", "--heads 32 --bias heads", **two)
    yield asked("bias, one for the batch", "--batch 4 --bias batch", batch=2)
    yield asked("bias, one for both", "--heads 32 --batch 4 --bias both", **two, batch=2)
    yield asked("sink logits (gpt-oss)", "--sinks", **two)
    yield asked("key padding", "--mask padding")
    yield asked("dropout", "--dropout 0.1")


def decoding() -> Iterator[Variant]:
    """Few queries, and how keys and values are kept."""
    yield asked("one query", "--q-len 1", q_len=1)
    yield asked("several queries", "--q-len 4 --causal")
    yield asked("split keys", "--q-len 1 --alg flash_decoding --splits 8", q_len=1)
    many = {"q_len": 1, "kv_len": tuple(range(1, 8193))}
    yield written("many lengths", "q_len=1, kv_len=(1, 2, ...)", many, q_len=(1, 2), kv_len=(9, 5), batch=2)
    yield asked("paged cache", "--q-len 1 --page-size 16", q_len=1, page_size=2)
    for kv_dtype in BITS:
        yield asked(f"cache in {kv_dtype}", f"--q-len 1 --kv-dtype {kv_dtype}", q_len=1)
    for scales in KV_SCALES:
        options = f"--q-len 1 --kv-dtype int8 --kv-scales {scales}"
        yield asked(f"cache in int8, scale per {scales}", options, q_len=1, heads=2, kv_heads=2)


GROUPS: dict[str, Callable[[], Iterator[Variant]]] = {
    "Masks": masks, "Heads": heads, "Scores": scores, "Decoding": decoding,
}  # fmt: skip
FEATURES = {  # columns of the last table: their variants
    "mask with gaps": "attention sinks", "key padding": "key padding", "dropout": "dropout", "soft cap": "soft cap",
    "ALiBi": "ALiBi", "bias": "bias", "sink": "sink logits (gpt-oss)", "paged": "paged cache",
    "narrow": "cache in int8", "latent": "latent cache (MLA)", "packed": "packed groups",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ what holds
def claim(holds: bool, what: str) -> None:  # noqa: FBT001
    """Raises VerificationError where a cell would be wrong."""
    if not holds:
        raise VerificationError(f"docs/variants.md would say what does not hold: {what}")


@cache
def _expected(problem: AttentionProblem, *, softmax: bool) -> tuple[Arrays, Arrays]:
    inputs = random_inputs(problem)
    saved = attention(problem, inputs)
    return {**saved, **inputs}, saved if softmax else linear_attention(inputs)


@cache
def refusal(text: Callable[..., None], problem: AttentionProblem, *, softmax: bool = True) -> str:
    """Why a text does not compute a problem; empty if it does. Raises VerificationError: values or counts are wrong."""
    inputs, expected = _expected(problem, softmax=softmax)
    try:
        program = record(text, problem.features)
        run = execute(program, problem, TILES, inputs)
    except InputError as e:
        return str(e).replace(text.__name__, "it")
    what = f"{program.name}, {problem}"
    for name in (n for n in ("O", *GRADIENTS) if n in program.tensors and program.tensors[n].role == "output"):
        claim(bool(np.abs(run.tensors[name] - expected[name]).max() <= TOLERANCE), f"values of {name}: {what}")
    claim(count(program, problem, TILES) == run.traffic, f"counts: {what}")
    claim(has_closed_form(program), f"formula: {what}")
    return ""


def forward(algorithm: Algorithm, problem: AttentionProblem) -> str:
    """The same for an algorithm, with its keys in several parts and in one."""
    texts = [algorithm.forward] + [algorithm.unsplit] * (algorithm.unsplit is not None)
    return next(filter(None, (refusal(text, problem, softmax=algorithm.softmax) for text in texts)), "")


def backward(algorithm: Algorithm, problem: AttentionProblem) -> str:
    """The same for its backward pass."""
    try:
        return refusal(algorithm.text("bwd"), replace(problem, direction="bwd"))
    except InputError as e:
        return str(e).replace(algorithm.name, "it")


def theorem(large: AttentionProblem, algorithm: Algorithm) -> str:
    """What bounds the large problem in the fast memory that the algorithm's tiles need; empty if nothing does."""
    program = record(algorithm.forward, large.features)
    sram_bytes = on_chip(program, large, LARGE_TILES).total
    bound = lower_bound(large, "fwd", sram_bytes, softmax=algorithm.softmax)
    issued = count(program, large, LARGE_TILES).total_bytes
    claim(issued >= bound.issued_bytes, f"bound: {program.name} moves {issued:,} B of {bound}")
    return bound.theorem


def natural(algorithm: Algorithm, problem: AttentionProblem) -> AttentionProblem:
    """The problem as the algorithm takes it: values in the keys' columns, or causal self-attention."""
    if not algorithm.softmax:
        mask = m.CAUSAL if problem.band.packed(1) == m.FULL.packed(problem.pack) else problem.band
        return replace(problem, q_len=problem.kv_len or 1, mask=mask)
    latent = "V" not in record(algorithm.forward).tensors
    return replace(problem, shared_kv=True, value_dim=min(2, problem.head_dim)) if latent else problem


# ------------------------------------------------------------------------------------------------ the page
class Notes:
    """Reasons, numbered as they are met."""

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}

    def __call__(self, reasons: Iterable[str]) -> str:
        """Marks, like [1] [4], of the reasons that are not empty."""
        numbers = {self.reasons.setdefault(reason, len(self.reasons) + 1) for reason in reasons if reason}
        return " ".join(f"[{n}]" for n in sorted(numbers))


NO_BOUND = {
    "linear": "it computes another function than softmax attention, so that no theorem here bounds it",
    "devices": "the theorems bound what one processor loads into its fast memory, not what links carry",
}


def variant_row(v: Variant, notes: Notes) -> Row:
    """A variant, by all programs that may be asked for it."""
    programs = [a for a in ALGORITHMS if a.softmax and ("V" in record(a.forward).tensors or v.small.shared_kv)]
    flash2 = find("flash2")
    cells = [_how_many([forward(a, v.small) for a in programs], notes), "exact", "closed form"]
    return [v.name, v.how, *cells, f"`{theorem(v.large, flash2)}`", _gradients(programs, v.small, notes)]


def _how_many(reasons: list[str], notes: Notes) -> str:
    able = reasons.count("")
    claim(able > 0, f"some program can: {reasons}")
    return f"all {able}" if able == len(reasons) else f"{able} of {len(reasons)} {notes(reasons)}"


def _gradients(programs: list[Algorithm], problem: AttentionProblem, notes: Notes) -> str:
    try:
        replace(problem, direction="bwd")
    except InputError as e:
        return notes([str(e)])
    return _how_many([backward(a, problem) for a in programs if a.backward], notes)


def program_row(a: Algorithm, notes: Notes) -> Row:
    """A program, on the problem that it is made for."""
    large = natural(a, AttentionProblem(q_len=8192, mask=m.CAUSAL))
    small = natural(a, AttentionProblem(**SMALL | {"mask": m.CAUSAL}))
    for why in (forward(a, small), backward(a, small) if a.backward else ""):
        claim(not why, why)
    proved = theorem(large, a)
    gradient = "exact" if a.backward else notes([backward(a, small)])
    values = "exact" if a.softmax else "exact, of linear attention"
    return [a.title, f"`--alg {a.name}`", values, "exact", "closed form",
            f"`{proved}`" if proved else notes([NO_BOUND["linear"]]), gradient]  # fmt: skip


def scheme_row(scheme: Scheme, notes: Notes) -> Row:
    """A scheme on two devices, and on a billion tokens in closed form."""
    problem = AttentionProblem(**SMALL | {"heads": 4, "kv_heads": 2, "mask": m.CAUSAL})
    verify(scheme, problem, devices=2)
    claim(count_devices(scheme, replace(problem, q_len=2**30, kv_len=2**30), devices=2).flops > 0, scheme.name)
    gradient = "exact"
    try:
        verify(scheme, replace(problem, direction="fwd+bwd"), devices=2)
    except InputError as e:
        gradient = notes([str(e).replace(scheme.name, "it")])
    how = f"`ioaware parallel --scheme {scheme.name}`"
    return [scheme.title, how, "exact", "exact", "closed form", notes([NO_BOUND["devices"]]), gradient]


def format_row(form: str, notes: Notes) -> Row:
    """A number format: of all tensors, or of the cache alone."""
    field = "dtype" if form in FLOATS else "kv_dtype"
    usual = {"dtype": "fp16", "score_dtype": None, "accum_dtype": "fp32"}
    problem = AttentionProblem(**SMALL | usual | {field: form})
    flash2, passes = find("flash2"), ("fwd", "bwd") if field == "dtype" else ("fwd",)
    for direction in passes:
        one = replace(problem, direction=direction)
        program = record(flash2.text(direction), one.features)
        inputs, _ = _expected(one, softmax=True)
        claim(count(program, one, TILES) == execute(program, one, TILES, inputs).traffic, f"counts in {form}")
    large = replace(AttentionProblem(q_len=8192), **{field: form})  # type: ignore[arg-type]
    gradient = "counts exact" if "bwd" in passes else _gradients([], problem, notes)
    return [form, f"`--{field.replace('_', '-')} {form}`", _accuracy(form), "exact", "closed form",
            f"`{theorem(large, flash2)}`", gradient]  # fmt: skip


def _accuracy(form: str) -> str:
    """How many methods with the format were measured; all are nearer to float64 than the answer zero."""
    methods = [x for x in METHODS.values() if form in (x.q.form, x.k.form, x.v.form)]
    for method, errors in measured(methods, precision_inputs(1, 40, 8)):
        claim(errors.frobenius < 1, f"{method.name} computes attention: {errors}")
    if not methods:  # the reference's own format
        claim(not forward(find("flash2"), AttentionProblem(**SMALL | {"dtype": form})), f"values in {form}")
    return f"measured: {len(methods)} of `ioaware accuracy`" if methods else "exact"


def feature_cell(a: Algorithm, problem: AttentionProblem, notes: Notes) -> str:
    """Whether a program has a feature: forward, and in its backward pass where there is one."""
    problem = natural(a, problem)
    why = forward(a, problem)
    if why:
        return notes([why])
    gradient = a.backward and not (problem.kv_dtype or problem.page_size or problem.shared_kv)
    return f"✓ {notes([backward(a, problem)]) if gradient else ''}".strip()


def table(head: Iterable[str], rows: Iterable[Row]) -> str:
    """Markdown. Raises VerificationError: a cell is empty."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        claim(all(row) and len(row) == len(lines[0]), f"a cell is empty: {row}")
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """All of it. Raises VerificationError: a claim does not hold."""
    notes, parts = Notes(), [HEAD.format(tolerance=TOLERANCE)]
    found = {group: list(members()) for group, members in GROUPS.items()}
    rows = {group: [variant_row(v, notes) for v in members] for group, members in found.items()}
    rows["Programs"] = [program_row(a, notes) for a in ALGORITHMS if a.softmax]
    rows["Approximate"] = [program_row(a, notes) for a in ALGORITHMS if not a.softmax]
    rows["Many devices"] = [scheme_row(scheme, notes) for scheme in SCHEMES]
    rows["Number formats"] = [format_row(form, notes) for form in FORMATS]
    for group, members in rows.items():
        parts.append(f"## {group}\n{table(('', 'ask for it by', *COLUMNS), members)}\n")
    problems = {v.name: v.small for members in found.values() for v in members}
    cells = ([f"`{a.name}`", *(feature_cell(a, problems[v], notes) for v in FEATURES.values())] for a in ALGORITHMS)
    parts.append(f"## Programs and features\n{table(('', *FEATURES), cells)}\n")
    parts.append("## Reasons\n" + "\n".join(f"- [{n}] {reason}" for reason, n in notes.reasons.items()) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(page())
