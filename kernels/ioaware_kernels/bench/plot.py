"""The picture of a run: time over N, warm and cold, issued bytes over N, exponents. For print in grey and on screens.

Algorithms differ in marker and line as well as in colour; the colours are Okabe and Ito's (2008), which colour-blind
people tell apart. Matplotlib (extra `plot`) is imported here, and its state machine `pyplot` never.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ioaware.errors import InputError, MissingExtra

from .record import MODES, Bench, Fit, Row

ENDINGS = (".png", ".svg", ".html")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("--", "-.", (0, (5, 1)), (0, (1, 1)), (0, (8, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIZE = (10.0, 8.0)  # inches
STYLE: Any = {"svg.hashsalt": "ioaware", "svg.fonttype": "none", "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}


def require(path: str) -> None:
    """Raises InputError: a kind of file that is not drawn; MissingExtra: no Matplotlib."""
    if not path.lower().endswith(ENDINGS):
        raise InputError(f"--plot={path:.60}: draws {', '.join(ENDINGS)} only; name it like bench.svg")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("--plot", "Matplotlib", "plot") from None


def draw(bench: Bench, path: str) -> None:
    """Write the picture, or with the ending .html a page that holds it."""
    if path.lower().endswith(".html"):
        from .page import page

        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(page(bench, svg(bench)))
        return
    _save(bench, path, path.lower()[-3:])


def svg(bench: Bench) -> str:
    """The picture as one <svg> element."""
    out = io.BytesIO()
    _save(bench, out, "svg")
    text = out.getvalue().decode()
    return text[text.index("<svg") :]


def _save(bench: Bench, to: Any, kind: str) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        (warm, cold), (moved, exponents) = figure.subplots(2, 2)
        for axes, mode in zip((warm, cold), MODES, strict=True):
            _times(axes, bench, mode)
        _bytes(moved, bench)
        _exponents(exponents, bench)
        figure.suptitle(f"{bench.device['name']}: measured (markers, quartiles), predicted (lines), floor (dots)")
        figure.savefig(to, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


# ------------------------------------------------------------------------------------------------ the panels
def _times(axes: Any, bench: Bench, mode: str) -> None:
    for name, (colour, marker, line), rows in _curves(bench):
        found = [(row.problem["kv_len"], row, row.quartiles_s(mode)) for row in rows]
        points = [(n, row, q) for n, row, q in found if q]
        if not points:
            continue
        x, middle = [n for n, _, _ in points], [q[1] for _, _, q in points]
        bars = [[q[1] - q[0] for _, _, q in points], [q[2] - q[1] for _, _, q in points]]
        axes.errorbar(x, middle, bars, fmt=marker, color=colour, capsize=3, markerfacecolor="none", label=name)
        if all(mode in row.predicted for _, row, _ in points):
            times = [row.predicted[mode]["time_s"] for _, row, _ in points]
            axes.plot(x, times, linestyle=line, color=colour, label=f"{name}, predicted")
    floor = {row.problem["kv_len"]: row.floor["time_s"] for _, _, rows in _curves(bench) for row in rows}
    if floor:
        axes.plot(sorted(floor), [floor[n] for n in sorted(floor)], ":", color="black", label="physical floor")
    _logarithmic(axes, f"time over N, {mode}", "N", "seconds")


def _bytes(axes: Any, bench: Bench) -> None:
    least: dict[int, int] = {}
    for name, (colour, marker, line), rows in _curves(bench):
        x = [row.problem["kv_len"] for row in rows]
        least |= {row.problem["kv_len"]: row.compulsory_bytes for row in rows}
        if all(row.counted for row in rows):
            axes.plot(
                x,
                [row.counted["issued_bytes"] for row in rows],
                marker=marker,
                linestyle=line,
                color=colour,
                label=name,
            )
    if least:
        axes.plot(sorted(least), [least[n] for n in sorted(least)], ":", color="black", label="compulsory")
    _logarithmic(axes, "bytes over N, as the kernels issue them (counted)", "N", "bytes")


def _logarithmic(axes: Any, title: str, x: str, y: str) -> None:
    axes.set(yscale="log", title=title, xlabel=x, ylabel=y)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _exponents(axes: Any, bench: Bench) -> None:
    for at, fit in enumerate(reversed(bench.fits)):
        for offset, name, colour, marker in (
            (0.15, "measured", COLOURS[0], "o"),
            (-0.15, "predicted", COLOURS[1], "s"),
        ):
            value, low, high = getattr(fit, name)
            bar = [[max(0.0, value - low)], [max(0.0, high - value)]]
            label = name if at == 0 else None
            axes.errorbar([value], [at + offset], xerr=bar, fmt=marker, color=colour, capsize=3, label=label)
        axes.plot([fit.issued], [at], "x", color="black", label="issued bytes" if at == 0 else None)
    axes.set_yticks(range(len(bench.fits)), [_name(fit) for fit in reversed(bench.fits)], fontsize="small")
    axes.set(title="exponents, 95 % intervals", xlabel="exponent")
    if bench.fits:
        axes.legend(fontsize="small")


def _name(fit: Fit) -> str:
    return f"{fit.algorithm} over {fit.over}, {fit.mode}"


def _curves(bench: Bench) -> Iterator[tuple[str, tuple[str, str, Any], list[Row]]]:
    """Of every algorithm the rows over N with its own tiles, at the head_dim that has most of them."""
    plain = [row for row in bench.rows if row.asked_tiles is None and row.problem["q_len"] == row.problem["kv_len"]]
    head_dims = [row.problem["head_dim"] for row in plain]
    at = max(head_dims, key=head_dims.count, default=0)
    names = list(dict.fromkeys(row.algorithm for row in plain))
    for number, name in enumerate(names):
        rows = [row for row in plain if row.algorithm == name and row.problem["head_dim"] == at]
        look = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], LINES[number % len(LINES)]
        yield name, look, sorted(rows, key=lambda row: int(row.problem["kv_len"]))
