"""One offline HTML page of a run: the picture inlined, every table, the command. Nothing is fetched, nothing runs."""

from __future__ import annotations

from html import escape

from .record import Bench
from .tables import Table, notes, tables

STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 2rem; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { border-bottom: 1px solid #bbb; padding: .2rem .6rem; text-align: right; }
.text { text-align: left; }
.wrong { font-weight: bold; }
svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; }
@media (prefers-color-scheme: dark) { svg { background: white; } }
"""


def page(bench: Bench, svg: str) -> str:
    """The page; `svg` is trusted, everything else is escaped."""
    wrong = "".join(f'<li class="wrong">{escape(sentence)}</li>' for sentence in bench.problems)
    about = {**bench.device, **bench.versions, "date": bench.date, "seed": bench.seed, "samples": bench.repeats}
    facts = Table("machine and versions", ("what", "value"), [[k, str(v)] for k, v in about.items()], 2)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ioaware bench: {escape(str(bench.device["name"]))}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Predicted beside measured: {escape(str(bench.device["name"]))}</h1>
<pre>{escape(bench.command)}</pre>
<ul>{wrong}{"".join(f"<li>{escape(note)}</li>" for note in notes(bench))}</ul>
{svg}
{"".join(_table(table) for table in (*tables(bench), facts) if table.rows)}
</body>
</html>
"""


def _table(table: Table) -> str:
    head = _cells("th", list(table.columns), table.left)
    body = "".join(f"<tr>{_cells('td', row, table.left)}</tr>\n" for row in table.rows)
    return f"<table><caption>{escape(table.title)}</caption>\n<tr>{head}</tr>\n{body}</table>\n"


def _cells(tag: str, cells: list[str], left: int) -> str:
    kinds = (' class="text"' if n < left else "" for n in range(len(cells)))
    return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
