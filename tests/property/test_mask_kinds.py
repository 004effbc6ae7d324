"""Every kind of mask: its elements against its definition, written out, and its tiles against its elements."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.masks import (
    CAUSAL,
    FULL,
    Band,
    BigBird,
    Blocks,
    Chunks,
    Custom,
    Documents,
    Fixed,
    Longformer,
    Prefix,
    Sinks,
    Strided,
    parse_mask,
    rectangles,
    sparse,
    sweep,
    tile_kinds,
)
from tests.property.test_masks import any_bands, check_tiles, element_mask
from tests.strategies_masks import KINDS, bands, diagonals, masks

tiles = st.one_of(st.integers(1, 5), st.integers(1, 40))
OF_A_BAND = lambda band, gap: (band.left is None or gap >= -band.left) and (band.right is None or gap <= band.right)  # noqa: E731


def of_documents(m, p, k):
    owner = [n for n, length in enumerate(m.lengths) for _ in range(length)]
    return p >= 0 and owner[p] == owner[k] and OF_A_BAND(m.band, k - p)


def of_bigbird(m, p, k, kv_len):
    dense = dense_layout(m, -(-kv_len // m.block))
    return p >= 0 and dense[p // m.block, k // m.block] and OF_A_BAND(m.band, k - p)


def dense_layout(m, blocks):
    layout, dense = m.layout(blocks), np.zeros((blocks, blocks), bool)
    for row in range(blocks):
        dense[row, layout.columns[layout.starts[row] : layout.starts[row + 1]]] = True
    return dense


def of_strided(m, p, k):
    away = p // m.block - k // m.block
    return k <= p and (away <= m.stride or away % m.stride == 0)


DEFINITIONS = {  # whether position p = q + kv_len - q_len sees key k
    Sinks: lambda m, p, k: k <= p and (k < m.sinks or k > p - m.window),
    Prefix: lambda m, p, k: k <= p or k < m.keys,
    Longformer: lambda m, p, k: p - m.window <= k <= p + m.window or p < m.tokens or k < m.tokens,
    Chunks: lambda m, p, k: k <= p and p // m.length == k // m.length,
    Fixed: lambda m, p, k: k <= p and (p // m.stride == k // m.stride or m.stride - m.summary <= k % m.stride),
    Strided: of_strided,
    Documents: of_documents,
}


def defined(mask, rows, kv_len):
    """The element mask, one element at a time."""
    if isinstance(mask, Band):
        return element_mask(mask, rows, kv_len)
    out, shift = np.zeros((rows, kv_len), bool), kv_len - rows // mask.pack
    for row in range(rows):
        for k in range(kv_len):
            q = row // mask.pack
            if isinstance(mask, Blocks):
                first, last = mask.layout.starts[q // mask.block_q : q // mask.block_q + 2]
                ones = mask.layout.columns[first:last].tolist()
                out[row, k] = k // mask.block_kv in ones and OF_A_BAND(mask.band, k - q - shift)
            elif isinstance(mask, BigBird):
                out[row, k] = of_bigbird(mask, q + shift, k, kv_len)
            elif isinstance(mask, Custom):
                out[row, k] = diagonals(q, k)
            else:
                out[row, k] = DEFINITIONS[type(mask)](mask, q + shift, k)
    return out


def seen_elements(mask, rows, kv_len):
    return mask.sees(np.arange(rows)[:, None], np.arange(kv_len)[None], rows, kv_len)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(data=st.data())
def test_elements_are_the_definition(kind, data):
    mask, rows, kv_len = data.draw(masks(kinds=(kind,), longest=16))
    expected = defined(mask, rows, kv_len)
    np.testing.assert_array_equal(seen_elements(mask, rows, kv_len), expected)
    turned = mask.sees(np.arange(rows)[None], np.arange(kv_len)[:, None], rows, kv_len)
    np.testing.assert_array_equal(turned, expected.T)


def check_mask(mask, rows, kv_len, tile_q, tile_kv):
    """All that is said of tiles and of pairs follows from the elements."""
    elements = seen_elements(mask, rows, kv_len)
    check_tiles(mask, elements, tile_q, tile_kv)
    assert mask.pairs(rows, kv_len) == elements.sum()
    assert mask.seen_rows(rows, kv_len) == (elements.any(axis=1).sum(), elements.any(axis=0).sum())
    kinds = tile_kinds(mask, rows, kv_len, tile_q, tile_kv)
    assert min(kinds) >= 0
    assert sum(kinds) == -(-rows // tile_q) * -(-kv_len // tile_kv)
    assert all(type(x) is int for x in (*kinds, *mask.statistics(rows, kv_len, tile_q, tile_kv)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_tiles_are_what_enumeration_finds(kind, data):
    check_mask(*data.draw(masks(kinds=(kind,))), data.draw(tiles), data.draw(tiles))


def forget():
    """Sums and pieces are cached."""
    for cached in (rectangles._statistics, rectangles._full, rectangles._inside, sparse._layout):
        cached.cache_clear()


@settings(max_examples=30)
@given(masks(kinds=("sinks", "longformer", "fixed", "bigbird", "documents", "blocks")), tiles, tiles)
def test_a_sweep_in_many_steps_is_the_same(sized, tile_q, tile_kv):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "MOST_LINES", 5)
        forget()
        check_mask(*sized, tile_q, tile_kv)
    forget()


# Relations that need no elements: at lengths where nothing can be enumerated

long = st.integers(1, 5000)
long_tiles = st.one_of(st.integers(1, 8), st.integers(1, 700))


def answers(mask, rows, kv_len, tile_q, tile_kv):
    sizes = (rows, kv_len, tile_q, tile_kv)
    return (
        mask.statistics(*sizes), mask.full_tiles(*sizes), mask.turns(*sizes), mask.pairs(rows, kv_len),
        mask.seen_rows(rows, kv_len),
    )  # fmt: skip


def same(mask, other, *sizes):
    assert answers(mask, *sizes) == answers(other, *sizes)


@settings(max_examples=40)
@given(bands, long, st.integers(0, 300), st.integers(1, 4), long_tiles, long_tiles)
def test_one_document_is_the_band_itself(band, kv_len, fewer, pack, tile_q, tile_kv):
    """A sweep and a closed form, which share nothing: of the same mask at any length."""
    rows = max(kv_len - fewer, 1) * pack
    same(Documents((kv_len,), band, pack=pack), band.packed(pack), rows, kv_len, tile_q, tile_kv)


@settings(max_examples=40)
@given(any_bands, st.integers(1, 10**15), long_tiles, long_tiles)
def test_alignments_are_one_for_a_square(band, queries, tile_q, tile_kv):
    other = Band(band.left, band.right, not band.top_left, pack=band.pack)
    same(band, other, queries * band.pack, queries, tile_q, tile_kv)


@settings(max_examples=10)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 3), long_tiles, long_tiles)
def test_patterns_that_reach_everything(q_len, kv_len, pack, tile_q, tile_kv):
    """A window of all keys is causal, a prefix of all keys is full, and so on."""
    q_len = min(q_len, kv_len)
    sizes = (q_len * pack, kv_len, tile_q, tile_kv)
    for causal in (Band(kv_len, 0), Sinks(1, kv_len), Sinks(kv_len, 1), Chunks(kv_len), Fixed(kv_len, 1), Fixed(1, 1)):
        same(causal.packed(pack), CAUSAL.packed(pack), *sizes)
    for causal in (Documents((kv_len,), CAUSAL), BigBird(kv_len, band=CAUSAL), Strided(kv_len, 1), Strided(7, 1)):
        same(causal.packed(pack), CAUSAL.packed(pack), *sizes)
    ones = Blocks.of_matrix([[1]], q_len, kv_len)
    for full in (Prefix(kv_len), Longformer(kv_len, 1), Longformer(1, kv_len), Documents((kv_len,)), ones):
        same(full.packed(pack), FULL.packed(pack), *sizes)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 500), long_tiles, long_tiles)
def test_documents_of_one_length_are_chunks(length, many, fewer, tile_q, tile_kv):
    kv_len = length * many
    sizes = (max(kv_len - fewer, 1), kv_len, tile_q, tile_kv)
    same(Documents((length,) * many, CAUSAL), Chunks(length), *sizes)


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.data())
def test_finer_blocks_and_turned_blocks(q, kv, finer, block, data):
    row = st.lists(st.booleans(), min_size=kv, max_size=kv)
    matrix = np.array(data.draw(st.lists(row, min_size=q, max_size=q)))
    sizes = (q * finer * block, kv * finer * block, data.draw(tiles), data.draw(tiles))
    coarse = Blocks.of_matrix(matrix, finer * block, finer * block)
    same(coarse, Blocks.of_matrix(np.kron(matrix, np.ones((finer, finer), int)), block, block), *sizes)
    turned = Blocks.of_matrix(matrix.T, finer * block, finer * block)
    queries, keys, tile_q, tile_kv = sizes
    counted, back = coarse.statistics(*sizes), turned.statistics(keys, queries, tile_kv, tile_q)
    assert back[:4] == (counted.tiles, counted.cols, counted.rows, counted.cells)
    assert turned.full_tiles(keys, queries, tile_kv, tile_q) == coarse.full_tiles(*sizes)


@settings(max_examples=40)
@given(masks(), tiles, tiles)
def test_a_causal_mask_is_the_mask_and_causal(sized, tile_q, tile_kv):
    mask, rows, kv_len = sized
    if not isinstance(mask, Custom):
        queries, keys = np.arange(rows)[:, None], np.arange(kv_len)[None]
        diagonal = Band(right=0, top_left=getattr(mask, "top_left", False), pack=mask.pack)
        expected = seen_elements(mask, rows, kv_len) & diagonal.sees(queries, keys, rows, kv_len)
        np.testing.assert_array_equal(seen_elements(mask.causal(), rows, kv_len), expected)


@settings(max_examples=60)
@given(masks(most_packed=1))
def test_names_are_read_back(sized):
    mask = sized.mask
    if not isinstance(mask, (Blocks, Custom)) and not (isinstance(mask, BigBird) and "," in str(mask)):
        assert parse_mask(str(mask)) == mask
