"""The same launch on the engines `grid` and `jit`, each on its own copy of the arrays."""

import struct
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest

from ioaware_kernels.ptx import grid
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.jit import run as jit
from ioaware_kernels.ptx.jit.compile import compiled
from ioaware_kernels.ptx.parse import parse

BUDGET = Options.budget


class Did(NamedTuple):
    """What an engine did: bytes of every array, counts, findings without the first instance."""

    memory: list
    counts: dict
    findings: dict


@contextmanager
def cache_in(folder):
    """The machine code of the tests is kept there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IOAWARE_CACHE_DIR", str(folder))
        yield


def copied(buffer):
    return Buffer(buffer.name, buffer.words.copy(), buffer.holds.copy(), buffer.starts, buffer.sizes)


def did(arrays, result):
    counts = {(i.text, i.line, *rest): moved for (i, *rest), moved in result.counts.bytes.items()}
    found = {(f.what, f.instruction.text, f.instruction.line, f.memory): f.times for f in result.findings}
    return Did([a.words.tobytes() for a in arrays], counts, found)


def on_both(text, blocks, threads, arrays, dynamic=0, regions=(), budget=BUDGET):
    """What each engine did, and the arrays of `jit`."""
    params = {f"p{n}": struct.pack("<Q", (n + 1) << 40) for n in range(len(arrays))}
    extents = [(e,) if isinstance(e, int) else e for e in (blocks, threads)]
    kernel, own, other = parse(text)["k"], *([copied(a) for a in arrays] for _ in range(2))
    options = Options(budget=budget)
    by_grid = grid.launch(kernel, *extents, params, own, dynamic, regions, options)
    by_jit = jit.launch(kernel, compiled(kernel, text), *extents, params, other, dynamic, regions, budget)
    return did(own, by_grid), did(other, by_jit), other


def agree(text, blocks, threads, arrays, *more, findings=None):
    """Both engines did the same; the arrays of `jit`. `findings`: how many different ones there must be."""
    by_grid, by_jit, out = on_both(text, blocks, threads, arrays, *more)
    assert by_jit.findings == by_grid.findings
    assert by_jit.counts == by_grid.counts
    assert [m.hex() for m in by_jit.memory] == [m.hex() for m in by_grid.memory]
    if findings is not None:
        assert len(by_jit.findings) == findings
    return out


def words(array):
    """An array as unsigned numbers."""
    return array.words.view(np.uint32).tolist()
