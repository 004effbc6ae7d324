"""`accuracy`: how far each way of computing attention is from float64, on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .conventions import option
from .options import DEBUG, parse_seed

if TYPE_CHECKING:
    from ..masks import Mask
    from ..precision.measure import Errors
    from ..precision.method import Method

TABLES = ("fa3",)


class Setting(NamedTuple):
    """The inputs."""

    length: int
    head_dim: int
    heads: int
    causal: bool
    outliers: bool
    peaked: bool
    seed: int

    @property
    def mask(self) -> Mask | None:
        from ..masks import CAUSAL

        return CAUSAL if self.causal else None

    def as_dict(self) -> dict[str, Any]:
        names = {"length": "q_len", "causal": "mask"}
        out = {names.get(name, name): value for name, value in self._asdict().items()}
        return {**out, "kv_len": self.length, "mask": str(self.mask or "full")}


@click.command("accuracy", context_settings={"help_option_names": ["-h", "--help"]})
@option("--N", "n", metavar="N", help="Sequence length of queries and keys; default 1K, 8448 for --table fa3.")
@option("--d", metavar="D", help="Head dimension; default 128.")
@option("--heads", metavar="H", help="Heads; default 1, 8 for --table fa3.")
@option("--causal", is_flag=True, help="Causal mask.")
@option("--outliers", is_flag=True, help="Inputs N(0,1) + N(0,100) Bernoulli(0.001) instead of N(0,1).")
@option("--peaked", is_flag=True, help="Q = K, a slow walk: weights are large near the diagonal, and small elsewhere.")
@option("--seed", metavar="N", default="0", show_default=True, help="Of the random inputs.")
@option("--method", "methods", multiple=True, metavar="NAME", help="Repeatable; default: all.")
@option("--table", metavar="fa3", help="A table of a paper instead: FlashAttention-3, Table 3.")
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@DEBUG
def accuracy_command(**values: Any) -> None:
    """Measure the error of precisions and approximations against float64 attention of the unrounded inputs.

    Example: ioaware accuracy --N 2K --outliers --method flash3 --method flash3_fp8
    """
    # Threads of a matrix product wait for each other: where other processes have the cores, one alone is faster by far.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
    if values["table"] is not None:
        _table(values)
        return
    from ..precision.measure import inputs, measured

    setting = _setting(values)
    methods = _methods(values["methods"], setting.head_dim)
    sizes = setting.heads, setting.length, setting.head_dim, setting.seed
    x = inputs(*sizes, outliers=setting.outliers, peaked=setting.peaked)
    found: dict[str, tuple[Method, Errors, float | None]] = {}
    try:
        for method, errors in _progress(measured(methods, x, setting.mask), len(methods)):
            found[method.name] = method, errors, method.share(*x[:2], setting.mask)
    finally:  # interrupted: what is done is shown
        rmse = {name: errors.rmse for name, (_, errors, _) in found.items()}
        rows = [_row(*row, rmse, row[0].nbytes(*x)) for row in found.values()]
        _print(values, {"problem": setting.as_dict(), "complete": len(found) == len(methods), "methods": rows})


def _setting(values: dict[str, Any], length: int = 1024, head_dim: int = 128, heads: int = 1) -> Setting:
    from ..units import parse_count

    def count(flag: str, name: str, missing: int) -> int:
        return missing if values[name] is None else parse_count(values[name], flag)

    counts = count("--N", "n", length), count("--d", "d", head_dim), count("--heads", "heads", heads)
    return Setting(*counts, values["causal"], values["outliers"], values["peaked"], parse_seed(values["seed"]))


def _methods(names: tuple[str, ...], head_dim: int) -> list[Method]:
    """The methods asked for and those they are compared with; of all, those that take the head dimension."""
    from ..errors import InputError
    from ..precision.methods import METHODS, find_method

    chosen = [find_method(name) for name in names] or list(METHODS.values())
    needed = {name: find_method(name) for method in chosen for name in (method.standard, method.name) if name}
    out, reasons = [], {}
    for method in needed.values():
        try:
            method.check(head_dim)
            out.append(method)
        except InputError as e:
            if names:
                raise
            reasons[method.name] = e
    if reasons:
        click.echo(f"left out: {', '.join(reasons)}: {next(iter(reasons.values()))}", err=True)
    return out


def _row(method: Method, errors: Errors, share: float | None, rmse: dict[str, float], nbytes: int) -> dict[str, Any]:
    standard = rmse.get(method.standard or "")
    ratio = errors.rmse / standard if standard else None
    return {"name": method.name, "title": method.title, **errors._asdict(), "standard": method.standard,
            "x_standard": ratio, "pairs": share, "input_bytes": nbytes}  # fmt: skip


def _table(values: dict[str, Any]) -> None:
    from ..errors import InputError, unknown
    from ..precision import table3
    from ..precision.methods import find_method

    if values["table"] not in TABLES:
        raise unknown("--table", values["table"], TABLES, f"known: {', '.join(TABLES)}")
    for flag in ("methods", "causal", "outliers", "peaked"):
        if values[flag]:
            option_name = "method" if flag == "methods" else flag
            raise InputError(f"--{option_name} with --table {values['table']}: the table has its own; leave it out")
    setting = _setting({**values, "outliers": True}, table3.LENGTH, table3.HEAD_DIM, table3.HEADS)
    for row in table3.ROWS:
        find_method(row.method).check(setting.head_dim)
    squares: list[list[float]] = []
    seeds = range(setting.seed, setting.seed + setting.heads)
    try:
        heads = (table3.one_head(seed, setting.length, setting.head_dim) for seed in seeds)
        squares.extend(_progress(heads, setting.heads))
    finally:
        found = table3.summary(squares) if squares else {}
        rows = [
            {"method": row.method, "title": row.title, "paper_rmse": row.paper, **found[row.method]._asdict()}
            for row in table3.ROWS
            if found
        ]
        done = {"table": values["table"], "problem": setting.as_dict(), "complete": len(squares) == setting.heads}
        _print(values, {**done, "rows": rows})


def _progress(work: Iterable[Any], total: int) -> Iterator[Any]:
    """One after another, with a bar on a terminal's stderr."""
    import sys

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("accuracy", total=total)
        for done in work:
            yield done
            bar.advance(task)


def _print(values: dict[str, Any], out: dict[str, Any]) -> None:
    if values["as_json"]:
        import json

        from .. import __version__

        click.echo(json.dumps({"schema": 1, "version": __version__, **out}, allow_nan=False))
    elif out.get("methods") or out.get("rows"):
        from .show_accuracy import show

        show(out)
