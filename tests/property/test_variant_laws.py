"""Laws between variants: one way to say a thing equals another, and bytes are what is written out here by hand.

So a defect that all readers share, or the reference too, shows all the same.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.flash4 import flash4
from ioaware.algorithms.flash_decoding import flash_decoding, mla, mla_unsplit
from ioaware.algorithms.linear import linear_chunkwise, linear_recurrent
from ioaware.bounds import compulsory
from ioaware.masks import CAUSAL, FULL, Band, Blocks, Documents
from ioaware.problem import AttentionProblem, Bias
from ioaware.readers.evaluate import TileSizes
from ioaware.traffic import Moved, Traffic
from tests.strategies import EXACT
from tests.variants import PAGES, counted, legal, ran, self_attention, texts, variants

HEADS = ("slopes", "sink")  # one number per query head
TILES = TileSizes(4, 4)
seeds = st.integers(0, 99)
law = settings(max_examples=15)


def check_same(one, other):
    """Bitwise the same outputs, and the same traffic."""
    assert one.traffic == other.traffic
    for name in ("O", "L"):
        if name in one.tensors:
            np.testing.assert_array_equal(one.tensors[name], other.tensors[name], name)


# ------------------------------------------------------------------------------------------------ masks
@law
@given(text=texts, case=variants(mask=CAUSAL), more=st.integers(-1, 3), seed=seeds)
def test_a_window_of_all_keys_is_causal(text, case, more, seed):
    problem, sizes = case
    window = replace(problem, mask=Band(problem.longest()[1] + more, 0).packed(problem.pack))
    inputs = reference.random_inputs(problem, seed)
    check_same(ran(text, problem, sizes, inputs), ran(text, window, sizes, inputs))


def everything(problem, block_q, block_kv):
    """Masks that hide nothing, and are not the band that does."""
    q_len, kv_len = problem.q_len // problem.pack, problem.kv_len
    ones = np.ones((-(-q_len // block_q), -(-kv_len // block_kv)))
    return Documents((kv_len,)), Blocks.of_matrix(ones, block_q, block_kv)


@law
@given(text=texts, case=variants(mask=FULL, several=False), blocks=st.tuples(*2 * [st.integers(1, 5)]), seed=seeds)
def test_one_document_and_blocks_of_ones_are_no_mask(text, case, blocks, seed):
    problem, sizes = case
    problem = replace(problem, kv_len=problem.kv_len + problem.q_len)  # queries before the document see nothing
    inputs = reference.random_inputs(problem, seed)
    for mask in everything(problem, *blocks):
        same = replace(problem, mask=mask.packed(problem.pack))
        check_same(ran(text, problem, sizes, inputs), ran(text, same, sizes, inputs))


# ------------------------------------------------------------------------------------------------ sequences and heads
def cut(inputs, rows, keys):
    """The inputs of one sequence of a batch."""
    queries = {n: inputs[n][:, :, rows] for n in ("Q", "dO")}
    cache = {n: inputs[n][:, keys] for n in ("K", "V")}
    return {**inputs, **queries, **cache, "padding": inputs["padding"][keys]}


@law
@given(text=texts, case=variants(bias=None, dropout=0.0, kv_scales="token"), seed=seeds)
def test_a_batch_is_its_sequences(text, case, seed):
    """Values of each sequence alone, bitwise, and the sum of its bytes. Other scales are shared by the batch."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    batch, alone, q, kv = ran(text, problem, sizes, inputs), Traffic(), 0, 0
    for q_len, kv_len in problem.sequences:
        one = replace(problem, q_len=q_len, kv_len=kv_len, batch=1)
        run = ran(text, one, sizes, cut(inputs, slice(q, q + q_len), slice(kv, kv + kv_len)))
        np.testing.assert_array_equal(run.tensors["O"], batch.tensors["O"][:, :, q : q + q_len])
        alone, q, kv = alone + run.traffic, q + q_len, kv + kv_len
    assert alone == batch.traffic


@law
@given(text=texts.filter(lambda text: text.__name__ != "split_kv"), case=variants(packed=False), seed=seeds)
def test_grouped_heads_are_heads_with_the_same_keys(text, case, seed):
    """K and V repeated for every query head of a group: the same values, and bytes where each head loads its own."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    repeated = {name: np.repeat(inputs[name], problem.group, axis=0) for name in ("K", "V")}
    own = {n: x.reshape(-1, 1, *x.shape[2:]) for n, x in inputs.items() if n not in repeated and x.ndim == 4}
    grouped = ran(text, problem, sizes, inputs)
    every = ran(text, replace(problem, kv_heads=problem.heads), sizes, {**inputs, **repeated, **own})
    assert every.traffic == grouped.traffic
    np.testing.assert_array_equal(every.tensors["O"].reshape(grouped.tensors["O"].shape), grouped.tensors["O"])


def in_rows(x):
    """(kv_heads, group, rows, columns): the heads of a group become rows, the heads of a query next to each other."""
    h, g, rows, columns = x.shape
    return x.swapaxes(1, 2).reshape(h, 1, rows * g, columns)


@law
@given(text=texts, case=variants(packed=False, bias=None, dropout=0.0), seed=seeds)
def test_packed_heads_are_rows(text, case, seed):
    """The same values, and one tile of all rows reads the keys once for its group: K and V by exactly that less."""
    problem, (_, tile_kv, splits) = case
    packed = problem.packed()
    inputs = reference.random_inputs(problem, seed)
    rows = {n: in_rows(inputs[n]) for n in ("Q", "dO")} | {n: in_rows(inputs[n]) for n in HEADS if n in inputs}
    one_tile = TileSizes(packed.longest()[0], tile_kv, splits)
    one, other = ran(text, problem, one_tile, inputs), ran(text, packed, one_tile, {**inputs, **rows})
    np.testing.assert_allclose(other.tensors["O"], in_rows(one.tensors["O"]), rtol=1e-12, atol=1e-12)
    shares = 1 if text.__name__ == "split_kv" else problem.group  # split_kv does so without packing
    for name in ("K", "V", "block_table"):
        assert one.traffic[name].read_bytes == shares * other.traffic[name].read_bytes, name


# ------------------------------------------------------------------------------------------------ bytes by hand
def parts(problem, sizes):
    """Into how many parts a number of splits cuts the keys: whole tiles each, so that it may be fewer."""
    tiles = -(-problem.kv_len // sizes.kv)
    return -(-tiles // -(-tiles // sizes.splits))


def query_tiles(text, problem, sizes):
    """Of one head."""
    return -(-problem.q_len // (2 * sizes.q if text.__name__ == "flash4" else sizes.q))


def walks(text, problem, sizes):
    """How often a text walks all keys of a head without a mask: once per query tile, or per query head, or group."""
    once = {"flash1": problem.group, "split_kv": 1}
    each = once.get(text.__name__, problem.group * query_tiles(text, problem, sizes))
    return problem.batch * problem.kv_heads * each


def key_rows(text, problem, sizes):
    """Keys that are read: all of them in each walk, but what a walk back and forth finds on chip where it turns."""
    n, turns = problem.kv_len, query_tiles(text, problem, sizes) - 1
    last = n - (-(-n // sizes.kv) - 1) * sizes.kv
    kept = -(-turns // 2) * last + turns // 2 * min(n, sizes.kv)
    again = problem.batch * problem.heads * kept if text.__name__ == "flash2_serpentine" else 0
    return walks(text, problem, sizes) * n - again


def blocks(text, problem, sizes):
    """Thread blocks of the kernel that reads the keys."""
    heads, tiles = problem.batch * problem.heads, query_tiles(text, problem, sizes)
    return {
        "flash1": heads, "flash2_serpentine": heads, "flash_decoding": heads * tiles * parts(problem, sizes),
        "split_kv": problem.batch * problem.kv_heads * -(-problem.kv_len // sizes.kv),
    }.get(text.__name__, heads * tiles)  # fmt: skip


@given(text=texts, case=variants(mask=FULL, several=False, padding=True, alibi=True))
def test_numbers_of_keys_and_heads_are_read_once(text, case):
    """Padding where a key tile is, slopes where a head is; split_kv has a head per query tile of a block."""
    problem, sizes = case
    moved = counted(text, problem, sizes)
    once_per_head = blocks(text, problem, sizes)
    if text.__name__ == "split_kv":
        once_per_head *= problem.group * query_tiles(text, problem, sizes)
    assert moved["padding"] == Moved(8 * key_rows(text, problem, sizes))
    assert moved["slopes"] == Moved(8 * once_per_head * problem.pack)


@given(text=texts, case=variants())
def test_no_variant_moves_less_than_it_must(text, case):
    moved = counted(text, *case)
    for name, floor in compulsory(case.problem, "fwd").tensors.items():
        assert moved[name].read_bytes >= floor.read_bytes, name
        assert moved[name].write_bytes >= floor.write_bytes, name


# ------------------------------------------------------------------------------------------------ splits
@law
@given(case=variants(several=False), seed=seeds)
def test_splits_change_partial_results_only(case, seed):
    """O up to rounding; and each part reads the queries again, and writes a partial O and L, which are read once."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    whole, split = (ran(text, problem, sizes, inputs) for text in (flash2, flash_decoding))
    for name in ("O", "L"):
        np.testing.assert_allclose(split.tensors[name], whole.tensors[name], rtol=1e-12, atol=1e-12)
    n, rows = parts(problem, sizes), problem.batch * problem.heads * problem.q_len
    by_block = ["Q", "slopes"] + (["K_scale", "V_scale"] if problem.kv_scales != "token" else [])
    partial = {"O_part": n * rows * problem.value_dim * 8, "L_part": n * rows * 8}  # fp64
    expected = whole.traffic + Traffic({name: Moved(size, size) for name, size in partial.items()})
    for name in by_block:
        expected = expected + Traffic({name: Moved((n - 1) * whole.traffic[name].read)})
    assert split.traffic == expected


# ------------------------------------------------------------------------------------------------ the KV cache
pages = st.sampled_from(PAGES).flatmap(lambda page: st.tuples(st.just(page), legal(page)))


@law
@given(text=texts, case=variants(mask=FULL, several=False, page_size=None), pages=pages, seed=seeds)
def test_pages_cost_their_table_and_nothing_else(text, case, pages, seed):
    """4 bytes for every page that a tile has, or that has a tile; values are bitwise those of a contiguous cache."""
    (problem, sizes), (page, tile_kv) = case, pages
    sizes, paged = sizes._replace(kv=tile_kv), replace(problem, page_size=page)
    inputs = reference.random_inputs(problem, seed)
    contiguous, scattered = (ran(text, p, sizes, inputs) for p in (problem, paged))
    entries = walks(text, problem, sizes) * -(-problem.kv_len // min(page, tile_kv))
    assert scattered.traffic == contiguous.traffic + Traffic({"block_table": Moved(4 * entries)})
    np.testing.assert_array_equal(scattered.tensors["O"], contiguous.tensors["O"])


@law
@given(text=texts, case=variants(kv_dtype=None, page_size=3), seed=seeds)
def test_what_no_table_entry_reaches_is_never_read(text, case, seed):
    """Pages of nobody, and the end of a sequence's last page, hold NaN; it does not spread."""
    run = ran(text, *case, reference.random_inputs(case.problem, seed))
    assert np.isnan(run.tensors["K"]).any()
    assert np.isfinite(run.tensors["O"]).all()


FIXED = {"mask": FULL, "dtype": "fp16", "accum_dtype": "fp32", "kv_dtype": None}


@given(text=texts, case=variants(several=False, **FIXED))
def test_narrow_caches_move_their_bits_and_scales(text, case):
    """8 bits are half of fp16 and 4 bits a quarter, exactly; a row of odd length is rounded up to bytes.

    fp32 scales are read once per thread block, or with the keys that they are of.
    """
    problem, sizes = case
    by = key_rows if problem.kv_scales == "token" else blocks
    scales = Moved(4 * by(text, problem, sizes))
    wide = counted(text, problem, sizes)
    for kv_dtype, bits in (("int8", 8), ("fp8_e4m3", 8), ("fp8_e5m2", 8), ("int4", 4)):
        narrow = counted(text, replace(problem, kv_dtype=kv_dtype), sizes)
        for name, d in (("K", problem.head_dim), ("V", problem.value_dim)):
            assert narrow[name].read_bytes * 2 * d == wide[name].read_bytes * -(-d * bits // 8)
            assert narrow[f"{name}_scale"] == scales
        assert all(narrow[name] == moved for name, moved in wide.tensors.items() if name not in ("K", "V"))


@law
@given(case=variants(shared_kv=True, several=False, mask=FULL), seed=seeds)
def test_a_latent_cache_is_read_once_for_keys_and_values(case, seed):
    """What mla computes is flash2 with V copied from K; with all heads in one tile it reads what it must."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    for text in (mla, mla_unsplit):
        run = ran(text, problem, sizes, inputs)
        expected = ran(flash2, problem, sizes, inputs).tensors["O"]
        np.testing.assert_allclose(run.tensors["O"], expected, rtol=1e-12, atol=1e-12)
        assert "V" not in run.traffic.tensors
    one_tile = sizes._replace(q=problem.q_len)
    least = compulsory(problem, "fwd")["K"].read_bytes
    assert counted(mla_unsplit, problem, one_tile)["K"].read_bytes == problem.group * least


# ------------------------------------------------------------------------------------------------ scores
PLAIN = AttentionProblem(q_len=5, kv_len=7, heads=2, kv_heads=1, head_dim=4, **EXACT)
CHANGES = {
    "softmax_scale": 0.1, "softcap": 1.0, "alibi": True, "bias": Bias(), "sink": True, "padding": True, "dropout": 0.3,
    "kv_dtype": "int4", "shared_kv": True,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_every_feature_changes_the_output(field):
    """Otherwise agreement with a reference that ignores it too would say nothing."""
    problem = replace(PLAIN, **{field: CHANGES[field]})
    without, with_it = (ran(flash2, p, TILES, reference.random_inputs(p, 1)).tensors["O"] for p in (PLAIN, problem))
    assert np.abs(with_it - without).max() > 1e-3


@law
@given(text=texts, case=variants(softcap=0.0), seed=seeds)
def test_a_wide_soft_cap_caps_nothing(text, case, seed):
    """|c tanh(s / c) - s| <= |s|^3 / 3 c^2: far below rounding here."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    one, other = (ran(text, p, sizes, inputs).tensors["O"] for p in (problem, replace(problem, softcap=2.0**40)))
    np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)


@law
@given(text=texts, case=variants(sink=True), seed=seeds)
def test_a_sink_of_minus_infinity_is_none(text, case, seed):
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    sunk = ran(text, problem, sizes, {**inputs, "sink": np.full_like(inputs["sink"], -inf)})
    none = ran(text, replace(problem, sink=False), sizes, inputs)
    np.testing.assert_array_equal(sunk.tensors["O"], none.tensors["O"])


@law
@given(text=texts, case=variants(bias=Bias(), sink=False), c=st.sampled_from([-3.0, 5.0]), seed=seeds)
def test_a_constant_bias_is_none(text, case, c, seed):
    """A sink would notice."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    one, other = (ran(text, problem, sizes, {**inputs, "bias": inputs["bias"] + x}) for x in (0.0, c))
    np.testing.assert_allclose(other.tensors["O"], one.tensors["O"], rtol=1e-9, atol=1e-9)
    if "L" in one.tensors:
        np.testing.assert_allclose(other.tensors["L"], one.tensors["L"] + c, rtol=1e-9, atol=1e-9)


@law
@given(text=texts, case=variants(mask=FULL, several=False, alibi=False, bias=None, dropout=0.0, batch=1), seed=seeds)
def test_keys_have_no_order(text, case, seed):
    """Without a mask and positions, any order of keys, values and their padding gives the same."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    order = np.random.default_rng(seed).permutation(problem.kv_len)
    moved = {"K": inputs["K"][:, order], "V": inputs["V"][:, order], "padding": inputs["padding"][order]}
    one, other = (ran(text, problem, sizes, x).tensors["O"] for x in (inputs, {**inputs, **moved}))
    np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ two texts, one value
@law
@given(case=variants(), seed=seeds)
def test_lazy_rescaling_is_rescaling(case, seed):
    """Scores are spread, so that some maxima grow by more than 2^8 and some by less."""
    problem, sizes = case
    inputs = reference.random_inputs(problem, seed)
    inputs["Q"] = 10 * inputs["Q"]
    one, other = (ran(text, problem, sizes, inputs) for text in (flash2, flash4))
    for name in ("O", "L"):
        np.testing.assert_allclose(other.tensors[name], one.tensors[name], rtol=1e-9, atol=1e-9)


@law
@given(problem=self_attention(), seed=seeds)
def test_linear_attention_of_any_chunk_is_the_recurrence(problem, seed):
    inputs = reference.random_inputs(problem, seed)
    token_by_token = ran(linear_recurrent, problem, TILES, inputs).tensors["O"]
    for chunk in range(1, max(problem.q_len) + 2):
        chunks = ran(linear_chunkwise, problem, TileSizes(1, chunk), inputs).tensors["O"]
        np.testing.assert_allclose(chunks, token_by_token, rtol=1e-9, atol=1e-9)
