"""A kernel and its TOML as a user would write them, and changes of either."""

from __future__ import annotations

import re

from ioaware_kernels.implementation import load

KERNEL = 'extern "C" __global__ void mine(float* Q, float* K, float* V, float* O, float* L, int n) {%s}\n'
NOTHING = KERNEL % ""
TABLE = """\
title = "Mine"
algorithm = "flash2"
direction = "fwd"
masks = ["full"]
dtypes = ["fp32"]
aligned = 1
order_dependent = ["O"]
packs_group = false
strided = false

[[build]]
HEAD_DIM = 64
TILE_Q = 1
TILE_KV = 1
THREADS = 32

[[launch]]
entry = "mine"
kernel = "flash2"
grid = ["q_len", "heads", "batch"]
block = ["THREADS"]
parameters = ["Q", "K", "V", "O", "L", "q_len"]
shared = [
    { name = "sQ", holds = "Q", rows = "TILE_Q", columns = "HEAD_DIM", pad = 1 },
    { name = "sP", rows = "TILE_Q", columns = "TILE_KV", passes = { read = 1, write = 1 } },
]
dots = [
    { operands = ["sQ", ""], read_by = [1, 1] },
    { operands = ["sP", ""], read_by = [1, "THREADS"], columns = 1 },
]
"""
BUILD = TABLE[TABLE.index("[[build]]") : TABLE.index("[[launch]]")]
LAUNCH = TABLE[TABLE.index("[[launch]]") :]


def table(old, new):
    assert TABLE.count(old) >= 1, old
    return TABLE.replace(old, new, 1)


def without(part, instead=""):
    """No [[build]] or no [[launch]]; top-level keys come first in TOML."""
    return instead + table(part, "")


def keys(*edits):
    """Edits of a line `key = value`, each `key = another value` or `-key` for none; what changes is its own name."""
    out = {}
    for edit in edits:
        key = edit.removeprefix("-").partition(" = ")[0]
        (line,) = re.findall(rf"^{key} = .*$", TABLE, re.MULTILINE)
        out[edit] = table(f"{line}\n", "" if edit.startswith("-") else f"{edit}\n")
    return out


def mine(text, source=NOTHING):
    return {"mine.cu": source, "mine.toml": text}


def changed(old, new, kernel="flash2"):
    """A copy of a kernel with one change: it needs no table."""
    source = load(kernel).source
    assert source.count(old) == 1
    return {f"{kernel}.cu": source.replace(old, new)}
