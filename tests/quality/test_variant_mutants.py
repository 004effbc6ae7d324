"""The comparisons and laws of variants catch defects: in closed forms, in runs, in what is recorded, in texts.

A wrong closed form or a wrong run is refuted by the other. What is recorded wrongly all readers share: only bytes that
are written out by hand, or another way to say the same, refute it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ioaware import bounds
from ioaware.algorithms.flash1 import flash1
from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.flash_decoding import attend, partial
from ioaware.algorithms.split_kv import combine
from ioaware.masks import CAUSAL, FULL
from ioaware.problem import AttentionProblem
from ioaware.program import elu_plus_1, log, record, rowsum
from ioaware.program.attention import AttentionOps
from ioaware.program.loops import Seen, SeesLast, Tiles
from ioaware.program.recorder import Recorder
from ioaware.readers import algebra, count, execute
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.storage import Storage
from ioaware.sizes import ceil, name, product, size
from tests.property import test_variant_laws as laws
from tests.property.test_variants import check_agreement
from tests.quality.test_mutants import catches
from tests.strategies import EXACT
from tests.variants import Variant

BASE = AttentionProblem(q_len=5, kv_len=11, heads=4, kv_heads=2, head_dim=3, value_dim=2, mask=CAUSAL, **EXACT)
SIZES = TileSizes(2, 4, 3)


@pytest.fixture(autouse=True)
def _nothing_is_recorded():
    """What was recorded, and compiled of it, is forgotten after a mutant."""
    yield
    record.cache_clear()


def but(**changes):
    return replace(BASE, **changes)


def agrees(problem, text=flash2):
    """The three readers, compared on one case."""
    return lambda: check_agreement(text, problem, SIZES, 0)


def obeys(law, problem, **rest):
    """A law without its random examples, on one case."""
    return lambda: law.hypothesis.inner_test(case=Variant(problem, SIZES), **rest)


def check_caught(check, monkeypatch, owner, attribute, mutant):
    record.cache_clear()
    check()
    monkeypatch.setattr(owner, attribute, mutant)
    record.cache_clear()
    assert catches(check, [()])


# ------------------------------------------------------------------------------------------------ closed forms
RIGHT_VISIBLE, RIGHT_BYTES = algebra._visible, count.bytes_of


def last_tile_is_full(*args):
    """The ragged last page is forgotten: the last tile counts the pages of a full one."""
    return RIGHT_VISIBLE(*args).map(lambda a: size(0) if isinstance(a, SeesLast) else size(a))


def every_tile_is_the_last(*args):
    return RIGHT_VISIBLE(*args).map(
        lambda a: size(Seen(a.index, a.other, rows=False) if isinstance(a, SeesLast) else a)
    )


def rows_are_not_rounded_up(shape, role):
    return ceil(product(shape) * name("kv_bits"), 8) if role == "kv" else RIGHT_BYTES(shape, role)


@pytest.mark.parametrize(
    ("mutant", "owner", "attribute", "check"),
    [
        (last_tile_is_full, algebra, "_visible", agrees(but(page_size=1))),
        (every_tile_is_the_last, algebra, "_visible", agrees(but(page_size=1))),
        (rows_are_not_rounded_up, count, "bytes_of", agrees(but(kv_dtype="int4"))),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_runs_refute_a_wrong_closed_form(mutant, owner, attribute, check, monkeypatch):
    check_caught(check, monkeypatch, owner, attribute, mutant)


# ------------------------------------------------------------------------------------------------ runs
RIGHT_PHYSICAL, RIGHT_IN_PAGES = Storage.rows, Storage.in_pages
RIGHT_RESULT, RIGHT_ADDED = execute.Machine._result, Storage.added


def one_page_off(self, tile, sequence):
    return RIGHT_PHYSICAL(self, tile, sequence) - self.page


def pages_of_nobody_are_zero(self, x):
    return np.nan_to_num(RIGHT_IN_PAGES(self, x))


def top_left_distances(self, i, j):
    queries = self._local(i) // self.problem.pack
    return np.abs(queries[:, None] - (self.columns(j) - self.sequence.kv_start)[None])


def distances_of_rows(self, i, j):
    """A packed row is taken for a query."""
    rows = self._local(i) + self.sequence.kv_len - self.sequence.q_len
    return np.abs(rows[:, None] - (self.columns(j) - self.sequence.kv_start)[None])


def every_row_is_of_the_first_head(self, per_head, i):
    return per_head[0 * self._local(i)]


def nothing_is_hidden(self, op, args):
    return args[0] if op.kind == "hide" else RIGHT_RESULT(self, op, args)


def scales_are_one(self):
    return {name: np.ones_like(x) if "scale" in name else x for name, x in RIGHT_ADDED(self).items()}


def chunks_are_the_recurrence():
    problem = AttentionProblem(q_len=(5, 7), head_dim=3, mask=CAUSAL, **EXACT)
    laws.test_linear_attention_of_any_chunk_is_the_recurrence.hypothesis.inner_test(problem, 0)


@pytest.mark.parametrize(
    ("mutant", "attribute", "check"),
    [
        (one_page_off, "rows", agrees(but(page_size=2))),
        (pages_of_nobody_are_zero, "in_pages",
         obeys(laws.test_what_no_table_entry_reaches_is_never_read, but(page_size=4), text=flash2, seed=0)),
        (top_left_distances, "_distances", agrees(but(alibi=True))),
        (distances_of_rows, "_distances", agrees(but(alibi=True).packed())),
        (every_row_is_of_the_first_head, "_per_row", agrees(but(sink=True).packed())),
        (nothing_is_hidden, "_result", chunks_are_the_recurrence),
        (scales_are_one, "added", agrees(but(kv_dtype="int8"))),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_values_refute_a_wrong_run(mutant, attribute, check, monkeypatch):
    check_caught(check, monkeypatch, Storage if hasattr(Storage, attribute) else execute.Machine, attribute, mutant)


# ------------------------------------------------------------------------------------------------ what is recorded
RIGHT_PACKED, RIGHT_CACHED, RIGHT_SCORES = AttentionProblem.packed, AttentionOps.cached, AttentionOps.score_mod
LONGER = Tiles(Recorder.splits.span, Recorder.splits.step + name("tile_kv"))  # than the splits by one tile


def mask_of_single_rows(self):
    """Each packed row takes the place of a query."""
    return replace(RIGHT_PACKED(self), mask=self.mask)


def read_where_it_is_used(self, piece, *indices):
    """Scales and slopes in every tile, not once per block."""
    return self._read(piece)[0]


def table_entries_for_keys_and_for_values(self, *pieces):
    return [RIGHT_CACHED(self, piece) for piece in pieces]


def latent_rows_are_read_twice(self, *pieces):
    self._read(*pieces)
    return RIGHT_CACHED(self, *pieces)


def alibi_before_the_cap(self, x, h, g, i, j):
    features = self.features
    self.features = features._replace(softcap=False)
    x = RIGHT_SCORES(self, x, h, g, i, j)
    self.features = features
    return self._op("softcap", x.shape, x)


WHOLE = but(mask=FULL)


@pytest.mark.parametrize(
    ("mutant", "owner", "attribute", "check"),
    [
        (LONGER, Recorder, "splits", obeys(laws.test_splits_change_partial_results_only, BASE, seed=0)),
        (mask_of_single_rows, AttentionProblem, "packed",
         obeys(laws.test_packed_heads_are_rows, BASE, text=flash2, seed=0)),
        (read_where_it_is_used, Recorder, "hoisted",
         obeys(laws.test_narrow_caches_move_their_bits_and_scales,
               replace(WHOLE, dtype="fp16", accum_dtype="fp32"), text=flash2)),
        (read_where_it_is_used, Recorder, "hoisted",
         obeys(laws.test_numbers_of_keys_and_heads_are_read_once,
               replace(WHOLE, padding=True, alibi=True), text=flash1)),
        (table_entries_for_keys_and_for_values, AttentionOps, "cached",
         obeys(laws.test_pages_cost_their_table_and_nothing_else, WHOLE, text=flash2, pages=(2, 4), seed=0)),
        (latent_rows_are_read_twice, AttentionOps, "cached",
         obeys(laws.test_a_latent_cache_is_read_once_for_keys_and_values,
               replace(WHOLE, shared_kv=True), seed=0)),
        (alibi_before_the_cap, AttentionOps, "score_mod", agrees(but(alibi=True, softcap=1.0))),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_bytes_by_hand_and_the_reference_refute_a_wrong_recording(mutant, owner, attribute, check, monkeypatch):
    check_caught(check, monkeypatch, owner, attribute, mutant)


def test_programs_refute_a_floor_of_wide_keys(monkeypatch):
    """As if a narrow cache were read in the storage format of all else."""
    right = bounds._cache
    check_caught(
        obeys(laws.test_no_variant_moves_less_than_it_must, but(kv_dtype="int4", q_len=1), text=flash2),
        monkeypatch, bounds, "_cache", lambda problem, keys: right(replace(problem, kv_dtype=None), keys),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ texts
def sink_in_every_split(p, Q, K, V, O, L):
    o_part, l_part = partial(p)
    for b, h, g, i, s in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles, p.splits):
        (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
        attend(p, Q, K, V, (h, g, i), p.tiles(s, p.kv_tiles.step), m, l, acc)
        p.store(o_part[s.number, h, g, i], acc / l)
        p.store(l_part[s.number, h, g, i], m + log(l))
    combine(p, o_part, l_part, O, L, p.splits)


def test_values_refute_a_sink_in_every_split():
    agrees(BASE, sink_in_every_split)()
    assert catches(agrees(but(sink=True), sink_in_every_split), [()])


def a_chunk_answers_after_it_was_added(p, Q, K, V, O):
    for b, h, g in p.kernel("chunks", p.batch, p.kv_heads, p.group):
        state, total = p.zeros(p.head_dim, p.value_dim), p.zeros(p.head_dim, 1)
        for j in p.loop(p.kv_tiles):
            i = p.same_rows(j)
            q, k, v = p.load(Q[h, g, i], K[h, j], V[h, j])
            q, k = elu_plus_1(q), elu_plus_1(k)
            state += k.T @ v
            total += rowsum(k.T)
            p.store(O[h, g, i], (q @ state) / (q @ total))


def test_the_recurrence_refutes_a_chunk_that_sees_ahead(monkeypatch):
    chunks_are_the_recurrence()
    monkeypatch.setattr(laws, "linear_chunkwise", a_chunk_answers_after_it_was_added)
    assert catches(chunks_are_the_recurrence, [()])
