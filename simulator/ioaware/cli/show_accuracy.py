"""The human output of `accuracy`: a line per method, or per row of a paper's table."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from .show import console

HELP = {
    "rmse": "root of the mean squared difference from float64 attention of the unrounded inputs",
    "relative": "the differences relative to the exact output, both as Frobenius norms",
    "x standard": "rmse as a multiple of that of the straightforward method in the same precision",
    "pairs": "of query and key, visible ones: how many of them are computed",
    "inputs": "bytes of Q, K and V as they are stored, scales included",
}


def show(out: dict[str, Any]) -> None:
    """Print what `accuracy` found."""
    p = out["problem"]
    kind = "N(0,1) + N(0,100) Bernoulli(0.001)" if p["outliers"] else "N(0,1)"
    kind += ", Q = K a slow walk" if p["peaked"] else ""
    line = f"N={p['q_len']:,} d={p['head_dim']}, {p['heads']} head{'s' * (p['heads'] > 1)}, {p['mask']} mask"
    screen = console()
    screen.print(Text("inputs  ").append(f"{line}, {kind}, seed {p['seed']}", style="bold"))
    screen.print()
    if "table" in out:
        screen.print(_paper(out["rows"]))
        screen.print(Text("  the paper does not give N, d and heads: docs/accuracy.md", style="dim"))
        return
    screen.print(_methods(out["methods"]))
    for name, text in HELP.items():
        screen.print(Text(f"  {name:<11}{text}", style="dim"))


def _methods(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for name in ("rmse", "max abs", "relative", "x standard", "pairs", "inputs"):
        table.add_column(name, justify="right")
    table.add_column("what it is", overflow="fold")
    for r in rows:
        ratio = "-" if r["x_standard"] is None else f"{r['x_standard']:.2f}"
        numbers = (f"{r[name]:.2e}" for name in ("rmse", "max_abs", "frobenius"))
        pairs = "-" if r["pairs"] is None else f"{r['pairs']:.1%}"
        table.add_row(r["name"], *numbers, ratio, pairs, f"{r['input_bytes']:,}", r["title"])
    return table


def _paper(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("FlashAttention-3, Table 3", overflow="fold")
    for name in ("paper", "here", "± sampling", "difference", "method"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for r in rows:
        error = "-" if r["standard_error"] is None else f"{r['standard_error'] / r['rmse']:.1%}"
        table.add_row(r["title"], f"{r['paper_rmse']:.1e}", f"{r['rmse']:.2e}", error,
                      f"{r['rmse'] / r['paper_rmse'] - 1:+.1%}", r["method"])  # fmt: skip
    return table
