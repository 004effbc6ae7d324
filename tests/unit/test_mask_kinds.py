"""Kinds of masks: counts by hand at lengths of a million, bugs that others reported, refusals, names, values."""

import numpy as np
import pytest

from ioaware.errors import InputError
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
    parse_window,
    tile_kinds,
    window,
)
from ioaware.masks.layout import Layout

N = 10**6
TRIANGLE = lambda n: n * (n + 1) // 2  # noqa: E731


def elements(mask, rows, kv_len):
    return mask.sees(np.arange(rows)[:, None], np.arange(kv_len)[None], rows, kv_len)


# Bugs that others reported


def test_a_window_of_one_key_is_the_query_itself():
    """transformers#39408: `window_size` leaves out the own key, `sliding_window=w` counts it: w - 1 to the left."""
    w = 1
    assert (elements(window(w - 1), 5, 5) == np.eye(5, dtype=bool)).all()
    for w in (2, 3, 5):
        seen = elements(window(w - 1), 9, 9).sum(axis=1)
        assert seen.tolist() == [min(q + 1, w) for q in range(9)]  # w keys in all, where there are as many


def test_a_large_right_side_drops_no_keys():
    """flash-attention#895: clamped to kv_len, a right side hides keys from the first of more queries than keys."""
    q_len, kv_len = 10, 4
    for right in (kv_len, q_len, 100):
        seen = elements(Band(left=None, right=right), q_len, kv_len)
        for q in range(q_len):
            assert seen[q].sum() == min(max(q + kv_len - q_len + right + 1, 0), kv_len)
    assert Band(right=q_len).pairs(q_len, kv_len) == q_len * kv_len
    assert Band(right=kv_len).pairs(q_len, kv_len) < q_len * kv_len


def test_more_queries_than_keys_leave_the_first_rows_empty():
    """flash-attention#1778: a causal mask is aligned bottom-right, so the first q_len - kv_len queries see nothing."""
    seen = elements(CAUSAL, 7, 3)
    assert seen.sum(axis=1).tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert CAUSAL.seen_rows(7, 3) == (3, 3)
    assert elements(Band(right=0, top_left=True), 7, 3).sum(axis=1).tolist() == [1, 2, 3, 3, 3, 3, 3]


def test_a_window_of_other_lengths_leaves_rows_empty_on_purpose():
    """flash-attention#2199: a window is aligned bottom-right too; which rows are empty follows from it."""
    seen = elements(window(1, 0), 6, 3).sum(axis=1)
    assert seen.tolist() == [0, 0, 0, 1, 2, 2]
    assert elements(window(1, 0), 3, 6).tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert elements(Band(1, 0, top_left=True), 6, 3).sum(axis=1).tolist() == [1, 2, 2, 1, 0, 0]


# Counts by hand


def test_sinks():
    """Query q sees q + 1 keys until window and sinks are full, then s + w; earlier ones lack 1 + 2 + ... keys."""
    s, w = 4, 1020
    assert Sinks(s, w).pairs(N, N) == N * (s + w) - TRIANGLE(s + w - 1)
    found = tile_kinds(Sinks(64, 960), 128 * 1000, 128 * 1000, 128, 64)  # 16 tiles of 64; a diagonal that cuts two
    assert found.full + found.partial == sum(min(2 * i + 2, 17 + 1) for i in range(1000))


def test_a_prefix():
    """The triangle, and of the prefix's square the other half."""
    p = 1000
    assert Prefix(p).pairs(N, N) == TRIANGLE(N) + TRIANGLE(p - 1)


def test_longformer():
    """Global rows and columns, and the band of the rest, which lacks a triangle at each end."""
    w, g = 256, 10
    rest = N - g
    assert Longformer(w, g).pairs(N, N) == N * N - rest * rest + rest * (2 * w + 1) - 2 * TRIANGLE(w)


def test_the_fixed_pattern():
    """A triangle per stretch, and c keys of every stretch for all later queries."""
    stride, c, n = 128, 32, 128 * 8000
    later = c * stride * TRIANGLE(n // stride - 1)
    assert Fixed(stride, c).pairs(n, n) == n // stride * TRIANGLE(stride) + later


def test_documents():
    """A square each; tiles of the square's side that fit it are full, and shifted by half a tile none is."""
    lengths = (64,) * 10**4
    n = 64 * 10**4
    assert Documents(lengths).pairs(n, n) == 64 * n
    assert Documents(lengths, CAUSAL).pairs(n, n) == 10**4 * TRIANGLE(64)
    assert tile_kinds(Documents(lengths), n, n, 64, 64)[:2] == (10**4, 0)
    assert tile_kinds(Documents((32, *lengths[1:], 32)), n, n, 64, 64)[:2] == (0, 3 * 10**4 - 2)


def test_bigbird():
    """2 n for the global rows; other rows see 2 global blocks, 3 of the window, of which the outermost rows have one
    that is global, and 3 random ones."""
    block, n = 64, 2**14
    blocks = 2 * n + (n - 2) * (2 + 3 + 3) - 2
    length = block * n
    assert BigBird(block).statistics(length, length, block, block).tiles == blocks
    assert BigBird(block).pairs(length, length) == blocks * block**2
    assert BigBird(block).full_tiles(length, length, block, block) == blocks


def test_the_strided_pattern():
    """Row i of blocks sees s + 1 blocks around the diagonal, and floor(i / s) - 1 more."""
    block, s, n = 8, 4, 4 * 500
    blocks = sum(min(i, s) + 1 + max(i // s - 1, 0) for i in range(n))
    assert Strided(block, s).statistics(n * block, n * block, block, block).tiles == blocks


def test_a_packed_group_shares_its_keys():
    """Eight heads of decoding in one tile read the keys once; their rows see as many pairs as before."""
    mask, kv_len = CAUSAL.packed(8), 4096
    assert mask.pairs(8, kv_len) == 8 * CAUSAL.pairs(1, kv_len)
    assert mask.statistics(8, kv_len, 8, 64) == (64, 512, 4096, 8 * 4096, 1)
    assert CAUSAL.packed(2).packed(4) == mask


def test_kinds_of_tiles():
    """Causal, square tiles: the diagonal is partial."""
    assert tile_kinds(CAUSAL, 640, 640, 64, 64) == (45, 10, 45)
    assert tile_kinds(FULL, 7, 9, 2, 4) == (12, 0, 0)
    assert tile_kinds(Custom(lambda q, k: k == q), 8, 8, 2, 2) == (0, 4, 12)


# Random blocks


def test_random_blocks_are_different_and_nowhere_else_visible():
    n, few = 40, BigBird(1, random=3, seed=7)
    layout = few.layout(n)
    for row in range(1, n - 1):
        columns = layout.columns[layout.starts[row] : layout.starts[row + 1]].tolist()
        known = {0, n - 1, row - 1, row, row + 1}
        assert known <= set(columns)
        assert len(columns) == len(set(columns)) == len(known) + 3


def test_random_blocks_depend_on_the_seed_alone():
    assert BigBird(1).layout(99) == BigBird(1).layout(99)
    assert BigBird(1).layout(99) != BigBird(1, seed=1).layout(99)
    assert BigBird(1, random=10**3).layout(30) == Layout.of_matrix(np.ones((30, 30)))  # all that are left


def test_random_blocks_are_uniform():
    """99 rows may draw a column, each from 99: once on average. In 20 layouts, within six standard deviations of 20."""
    columns = np.concatenate([BigBird(1, tokens=0, random=1, seed=seed).layout(102).columns for seed in range(20)])
    drawn = np.bincount(columns)[2:-2] - 20 * 3  # without the window's
    assert np.abs(drawn - 20).max() < 6 * 20**0.5


# Custom


def test_a_function_that_knows_its_tiles_is_not_asked_for_pairs():
    """Tiles of a checkerboard of 64 x 64 squares, at a length whose pairs would be refused."""
    visible = lambda q, k: (q // 64 + k // 64) % 2 == 0  # noqa: E731

    def visited(i, j, tile_q, tile_kv):
        assert (tile_q, tile_kv) == (64, 64)
        return (i + j) % 2 == 0

    n = 64 * 500
    checkers = Custom(visible, "checkers", visited)
    assert checkers.statistics(n, n, 64, 64) == (500 * 250, 250 * 500 * 64, 250 * 500 * 64, 250 * 500 * 64 * 64, 250)
    assert checkers.turns(n, n, 64, 64) == (0, 0)
    assert str(checkers) == "checkers"
    with pytest.raises(InputError, match=r"32,000 x 32,000: mask checkers has no closed form.* 16,384 x 16,384$"):
        checkers.full_tiles(n, n, 64, 64)


# Values


def test_masks_are_values():
    matrix = np.eye(3, dtype=bool)
    assert Blocks.of_matrix(matrix, 4, 4) == Blocks.of_lists([[0], [1], [2]], 3, 4, 4)
    assert hash(Blocks.of_matrix(matrix, 4, 4)) == hash(Blocks.of_lists([[0], [1], [2]], 3, 4, 4))
    assert Blocks.of_matrix(matrix, 4, 4) != Blocks.of_matrix(matrix, 4, 4, CAUSAL)
    assert Blocks.of_matrix(matrix, 4, 4) != Blocks.of_matrix(np.eye(3, 4), 4, 4)
    assert Documents([3, 4]) == Documents((3, 4)) != Documents((4, 3))
    assert len({Sinks(1, 2), Sinks(1, 2), Sinks(2, 1), Longformer(1, 2), Sinks(1, 2).packed(2)}) == 4
    assert Band(top_left=True) == FULL


def test_longformer_made_causal_is_sinks():
    """Global rows see what is before them, which is global too."""
    assert Longformer(5, 3).causal() == Sinks(3, 6)


# From the command line


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("full", FULL), ("causal", CAUSAL), ("causal-top-left", Band(right=0, top_left=True)),
        ("window:4095,0", Band(4095, 0)), ("window:4K", Band(4096, 0)), ("window:-1,3", Band(None, 3)),
        ("window-top-left:2,2", Band(2, 2, top_left=True)), ("sinks:4,1K", Sinks(4, 1024)), ("prefix:256", Prefix(256)),
        ("chunks:8192", Chunks(8192)), ("longformer:512,64", Longformer(512, 64)), ("fixed:128,32", Fixed(128, 32)),
        ("longformer:512,64+causal", Sinks(64, 513)), ("strided:32,4", Strided(32, 4)), ("bigbird:64", BigBird(64)),
        ("bigbird:64+causal", BigBird(64, band=CAUSAL)), ("documents:100,2K", Documents((100, 2048))),
        ("documents:5,6+window:3,0", Documents((5, 6), Band(3, 0))), ("prefix:9+causal", CAUSAL),
    ],
)  # fmt: skip
def test_texts(text, mask):
    assert parse_mask(text) == mask


@pytest.mark.parametrize(
    ("text", "band"),
    [("4095", Band(4095, 0)), ("4095,0", Band(4095, 0)), ("0", Band(0, 0)), ("-1", CAUSAL), ("-1,-1", FULL),
     ("512,512", Band(512, 512)), ("7,-1", Band(7, None))],
)  # fmt: skip
def test_windows(text, band):
    """The numbers of flash-attention's window_size."""
    assert parse_window(text) == band


REFUSED = {
    "causl": "--mask 'causl' is unknown, the nearest is 'causal'; known: full, ",
    "causal:3": "--mask=causal:3: write it like causal",
    "sinks": "--mask=sinks: write it like sinks:4,1024",
    "sinks:4": "--mask=sinks:4: sinks takes SINKS,WINDOW; write it like sinks:4,1024",
    "sinks:4,0": "--mask=0: must be at least 1; the nearest legal value is 1",
    "prefix:many": "--mask=many: not a number",
    "window:1,2,3": "--mask=1,2,3: a window has two sides; write LEFT,RIGHT, like 4095,0",
    "window:-2": "--mask=-2: ",
    "sinks:4,8+window:1,0": r"--mask=sinks:4,8\+window:1,0: only documents, blocks and bigbird are cut by a band",
    "documents:": "--mask=documents:: write it like documents:1000,2000",
    "documents:@none.txt": r"--mask: none.txt cannot be read \(No such file or directory\)",
    "blocks:layout.npy": "--mask=blocks:layout.npy: blocks takes BLOCK,FILE; write it like blocks:64,layout.npy",
    "blocks:64,none.npy": r"--mask: none.npy cannot be read \(No such file or directory\)",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=REFUSED)
def test_texts_that_are_refused(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{said}"):
        parse_mask(text)


MATRIX = np.array([[1, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize("text", ["100\n110\n", "1 0 0\n1 1 0\n", "1,0,0\n\n1,1,0"])
def test_a_layout_is_a_text_or_an_array(text, tmp_path):
    (tmp_path / "layout.txt").write_text(text)
    np.save(tmp_path / "layout.npy", MATRIX)
    for name in ("layout.txt", "layout.npy"):
        assert parse_mask(f"blocks:16,{tmp_path / name}") == Blocks.of_matrix(MATRIX, 16, 16)
    assert parse_mask(f"blocks:16,{tmp_path}/layout.npy+causal") == Blocks.of_matrix(MATRIX, 16, 16, CAUSAL)


def test_lengths_of_documents_in_a_file(tmp_path):
    (tmp_path / "lengths.txt").write_text("100 2K\n3,4\n")
    assert parse_mask(f"documents:@{tmp_path / 'lengths.txt'}") == Documents((100, 2048, 3, 4))


@pytest.mark.parametrize("content", ["", "10\n1", "102\n110"])
def test_a_text_that_is_no_layout(content, tmp_path):
    (tmp_path / "layout.txt").write_text(content)
    with pytest.raises(InputError, match=r"cannot be read \(not lines of zeros and ones"):
        parse_mask(f"blocks:16,{tmp_path / 'layout.txt'}")


def test_a_pickle_is_not_loaded(tmp_path):
    np.save(tmp_path / "layout.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        parse_mask(f"blocks:16,{tmp_path / 'layout.npy'}")


# Refusals


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Band(pack=0), "pack=0: a number of rows per query, at least 1; the nearest legal value is 1"),
        (lambda: window(-2), "window left=-2: a number of keys beside the query's own, or -1 for all"),
        (lambda: Sinks(0, 5), "Sinks sinks=0: must be at least 1; the nearest legal value is 1"),
        (lambda: Documents(()), "documents is empty; give one length per document"),
        (lambda: Documents((3, 0)), "document length=0: must be at least 1"),
        (lambda: Documents((3,), Band(right=0, top_left=True)), "band=causal-top-left: a pattern is cut by a bottom"),
        (lambda: Documents((3, 4)).statistics(7, 8, 1, 1), "kv_len=8: must be the sum of all documents' lengths"),
        (lambda: BigBird(64, window=2), "BigBird window=2: an odd number of blocks; the nearest legal value is 3"),
        (lambda: BigBird(64, random=-1), "BigBird random=-1: at least 0; the nearest legal value is 0"),
        (lambda: Blocks.of_matrix([1, 0], 1, 1), r"a block matrix has rows and columns: this one has the shape \(2,\)"),
        (lambda: Blocks.of_matrix([[2]], 1, 1), "a block matrix holds zeros and ones only"),
        (lambda: Blocks.of_lists([[3]], 3, 1, 1), "a block matrix needs rows, and columns from 0 to 2"),
        (lambda: Blocks.of_matrix(MATRIX, 8, 8).pairs(16, 30), "kv_len=30: the mask has 3 blocks of 8; the .* is 24"),
        (lambda: Blocks.of_matrix(MATRIX, 8, 8).pairs(8, 24), "q_len=8: the mask has 2 blocks of 8; the .* is 9"),
        (lambda: Sinks(4, 9).packed(2).pairs(3, 5), "q_len=3: must be a multiple of the 2 rows of a query; .* is 2"),
        (lambda: Sinks(4, 9).pairs(2**31, 5), r"q_len=2,147,483,648: only bands are counted beyond 2\^30 rows"),
        (lambda: Custom(lambda q, k: q == k, "mine").causal(), "mask mine is what its function says"),
    ],
)  # fmt: skip
def test_refusals(make, said):
    with pytest.raises(InputError, match=f"^{said}"):
        make()


def test_a_name_that_does_not_exist():
    import ioaware.masks

    with pytest.raises(AttributeError, match=r"module 'ioaware\.masks' has no attribute 'Sink'"):
        ioaware.masks.Sink  # noqa: B018
