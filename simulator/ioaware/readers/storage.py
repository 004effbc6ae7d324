"""How the inputs of `execute` lie in HBM where that is not as they are given: a KV cache in pages, or stored narrowly.

What no entry of the block table reaches is NaN: pages that nobody has, and what is behind a sequence's last key.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..kv_cache import quantise
from ..problem import AttentionProblem
from ..program.attention import KV_LEN
from ..program.nodes import Tensor
from .walk import Array, Sequence, Span

SPARE_PAGES = 3  # that no sequence has


class Storage:
    """The block table of a paged cache, and the numbers and scales of a narrow one."""

    def __init__(self, problem: AttentionProblem, inputs: Mapping[str, Array]) -> None:
        self.problem, self.page = problem, problem.page_size or 1
        self.table = self._table()
        self.narrow: dict[str, tuple[Array, Array]] = {}  # what is stored, and its scales
        for name in ("K", "V") if problem.kv_dtype else ():
            self.narrow[name] = quantise(np.asarray(inputs[name]), problem.kv_dtype or "", problem.kv_scales)
        if problem.shared_kv and self.narrow:
            self.narrow["V"] = self.narrow["K"][0][..., : problem.value_dim], self.narrow["K"][1]

    def _table(self) -> Array:
        """Which page of the pool each page of each sequence is in, sequence after sequence, in no order."""
        if self.problem.page_size is None:
            return np.arange(0)
        pages = sum(-(-kv_len // self.page) for _, kv_len in self.problem.sequences)
        return np.random.default_rng(0).permutation(pages + SPARE_PAGES)[:pages].astype(np.int32)

    def added(self) -> dict[str, Array]:
        """The inputs that come with the storage: the table, and scales in the shapes of their tensors."""
        whole = self.problem.kv_scales == "tensor"  # then without the axis of heads
        return {"block_table": self.table} | {
            f"{name}_scale": scale[0] if whole else scale for name, (_, scale) in self.narrow.items()
        }

    def is_paged(self, tensor: Tensor) -> bool:
        """Whether a tensor is part of a paged cache."""
        return self.problem.page_size is not None and KV_LEN in tensor.axes and tensor.name.startswith(("K", "V"))

    def in_pages(self, x: Array) -> Array:
        """A cache tensor (kv_heads, rows, columns) as a pool of pages."""
        pool = np.full((x.shape[0], (len(self.table) + SPARE_PAGES) * self.page, x.shape[2]), np.nan, x.dtype)
        kv = page_start = 0
        for _, kv_len in self.problem.sequences:
            pool[:, self._physical(page_start, np.arange(kv_len))] = x[:, kv : kv + kv_len]
            kv, page_start = kv + kv_len, page_start + -(-kv_len // self.page)
        return pool

    def rows(self, tile: Span, sequence: Sequence) -> Array:
        """Where the rows of a key tile are in the pool."""
        return self._physical(sequence.page_start, np.arange(tile.start, tile.stop) - sequence.kv_start)

    def _physical(self, page_start: int, positions: Array) -> Array:
        out: Array = self.table[page_start + positions // self.page] * self.page + positions % self.page
        return out
