"""Bounds: compulsory traffic by enumeration, the proved bound by its inequality, and no program below either."""

import itertools
from dataclasses import replace
from fractions import Fraction
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import bounds
from ioaware.bounds import (
    compulsory,
    io_bound_words,
    lower_bound,
    memory_words,
    published,
    small_memory_words,
)
from ioaware.cli.show import FORMULAS
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.program import exp, maximum, record, rowmax, rowsum
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.onchip import on_chip
from ioaware.traffic import Moved
from ioaware_proofs import theory
from tests.property.test_masks import element_mask
from tests.strategies import GENERAL, bands, problems, tiles

# Compulsory traffic


def needed_rows(problem):
    """(queries that see a key, keys that are seen, all queries, all keys) over all sequences, by looking at each."""
    masks = [element_mask(problem.band, *lengths) for lengths in problem.sequences]
    seeing, seen = sum(m.any(axis=1).sum() for m in masks), sum(m.any(axis=0).sum() for m in masks)
    return int(seeing), int(seen), sum(m.shape[0] for m in masks), sum(m.shape[1] for m in masks)


@given(problems(dtype="fp8"))
def test_compulsory_traffic_by_enumeration(problem):
    """fp8: one byte an element, so bytes are words. Rows that see nothing are not read, but their output is written."""
    seeing, seen, queries, keys = needed_rows(problem)
    heads, kv_heads, d, dv = problem.heads, problem.kv_heads, problem.head_dim, problem.value_dim
    reads = {"Q": heads * seeing * d, "K": kv_heads * seen * d, "V": kv_heads * seen * dv}
    reads |= {"padding": seen} if problem.padding else {}
    forward = {**{n: Moved(read=r) for n, r in reads.items()}, "O": Moved(write=heads * queries * dv)}
    assert compulsory(problem, "fwd").tensors == {n: m for n, m in forward.items() if any(m)}
    reads["dO"] = heads * seeing * dv
    writes = {"dQ": heads * queries * d, "dK": kv_heads * keys * d, "dV": kv_heads * keys * dv}
    backward = {n: Moved(read=r) for n, r in reads.items()} | {n: Moved(write=w) for n, w in writes.items()}
    assert compulsory(problem, "bwd").tensors == {n: m for n, m in backward.items() if any(m)}


def test_compulsory_traffic_is_what_people_say():
    """Q, K, V read and O written: 4 N d words."""
    problem = AttentionProblem(q_len=8192, head_dim=64)
    assert compulsory(problem, "fwd").total_bytes == 2 * 4 * 8192 * 64
    assert compulsory(problem, "bwd").total_bytes == 2 * (4 + 3) * 8192 * 64


# The inequality work |E| <= (l + M) max(M, 2 work)


@given(st.integers(0, 10**30), st.integers(1, 10**9), st.integers(1, 10**12))
def test_the_bound_is_the_least_solution_of_its_inequality(pairs, work, memory):
    words = io_bound_words(pairs, work, memory)
    per_memory = max(memory, 2 * work)
    assert words == ceil(Fraction(work * pairs, per_memory)) - memory
    assert work * pairs <= (words + memory) * per_memory
    assert work * pairs > (words - 1 + memory) * per_memory


@pytest.mark.parametrize("memory", [64, 4 * 64, 4 * 64**2 - 1, 4 * 64**2])
def test_a_small_memory_still_pays_half_the_pairs(memory):
    """Forward loads with d_v = d, M <= 4 d^2: 2 d^2 |E| / 4 d^2 - M."""
    assert io_bound_words(8192**2, 2 * 64**2, memory) == 8192**2 // 2 - memory


def test_both_regimes_meet():
    work = 2 * 64**2
    values = [io_bound_words(10**9, work, 2 * work + step) + 2 * work + step for step in (-1, 0, 1)]
    assert values[0] == values[1] == 5 * 10**8
    assert values[2] < values[1]


@given(st.integers(0, 10**20), st.integers(1, 10**4), st.integers(1, 10**9))
def test_the_bound_of_a_small_memory_is_the_least_solution_of_its_inequality(pairs, d, memory):
    """4 (|E| d)^2 <= (words + |E| + 2 M)^2 M."""
    words = small_memory_words(pairs, d, memory)
    least = words + pairs + 2 * memory
    assert 4 * (pairs * d) ** 2 <= least**2 * memory
    assert least == 0 or 4 * (pairs * d) ** 2 > (least - 1) ** 2 * memory


def test_the_example_of_192_kb():
    """N = 8192, d = 64, M = 98,304 words of fp16: 2 (64^2) (8192^2) / M = 5,592,405.3 loads, less M: 11.0 MB.

    Loads and stores together: twice that, 11,184,810.7, less M: 22.2 MB.
    """
    bound = lower_bound(AttentionProblem(q_len=8192, head_dim=64), "fwd", 192 * 1024)
    loads, together = 2 * (5_592_406 - 98_304), 2 * (11_184_811 - 98_304)
    assert bound == (loads, together, "traffic", "parallel_narrow_traffic_lower_bound", 98_304)


def test_the_example_of_64k():
    """N = 65,536, d = 64, M = 49,152 words: a query-stationary schedule moves 1.03 times the bound.

    It holds Q and O (2 d words a row), one key and one value, and one score: (B_r + 1) 2 d + 1 <= M.
    """
    n, d, memory = 65_536, 64, 49_152
    bound = io_bound_words(n * n, 4 * d * d, memory)
    b_r = (memory - 1) // (2 * d) - 1
    moved = n * d + 2 * n * d * ceil(n / b_r) + n * d
    assert moved / bound == pytest.approx(1.01, abs=0.005)


def test_words_are_counted_in_the_narrowest_format():
    problem = AttentionProblem(q_len=8192, dtype="fp16", score_dtype="fp8")
    assert memory_words(problem, 1000) == 1000
    assert memory_words(AttentionProblem(q_len=8192, dtype="fp32"), 1000) == 250
    assert memory_words(AttentionProblem(q_len=8192, dtype="fp64", accum_dtype="fp32"), 1000) == 250


def test_the_greatest_bound_binds():
    problem = AttentionProblem(q_len=2**16, head_dim=128)
    found = {kib: lower_bound(problem, "fwd", kib * 1024) for kib in (16, 64, 512, 2**20)}
    assert [b.binds for b in found.values()] == ["small_memory", "loads", "traffic", "compulsory"]
    assert found[16].issued_bytes == 2 * small_memory_words(2**32, 128, 8 * 1024)
    assert found[64].issued_read_bytes == 2 * io_bound_words(2**32, 2 * 128**2, 32 * 1024)
    assert found[64].issued_bytes == found[64].issued_read_bytes + 2 * 2**16 * 128
    assert found[512].issued_bytes == 2 * io_bound_words(2**32, 4 * 128**2, 256 * 1024)
    assert found[2**20][:2] == (2 * 3 * 2**16 * 128, 2 * 4 * 2**16 * 128)


def test_the_backward_bound_is_twice_the_forward_loads():
    """(d + d_v)^2 = 4 d^2 per pair; saved scores do not lower it, each of them is a load too."""
    problem, memory = AttentionProblem(q_len=2**16, head_dim=128), 2**18
    bound = lower_bound(problem, "bwd", 2 * memory)
    assert bound.issued_read_bytes == 2 * io_bound_words(2**32, 4 * 128**2, memory)
    assert bound.issued_bytes == bound.issued_read_bytes + 2 * 3 * 2**16 * 128


def test_head_and_value_dims_both_count():
    """DeepSeek's 192 and 128: d (d + d_v) = 61,440 and (d + d_v)^2 = 102,400; the other way round 4 d d_v = 98,304."""
    problem, memory = AttentionProblem(q_len=2**17, head_dim=192, value_dim=128), 2**18
    bound = lower_bound(problem, "fwd", 2 * memory)
    assert bound.issued_read_bytes == 2 * io_bound_words(2**34, 61_440, memory)
    assert bound.issued_bytes == 2 * io_bound_words(2**34, 102_400, memory)
    assert bound.theorem == "parallel_narrow_traffic_lower_bound"
    swapped = lower_bound(replace(problem, head_dim=128, value_dim=192), "fwd", 2 * memory)
    assert swapped.issued_bytes == 2 * io_bound_words(2**34, 98_304, memory)
    assert swapped.theorem == "parallel_total_traffic_lower_bound"


def test_a_mask_bounds_by_its_pairs():
    problem = AttentionProblem(q_len=2**16, head_dim=128, heads=8, kv_heads=2, batch=3, mask="causal")
    pairs = 3 * 8 * 2**16 * (2**16 + 1) // 2
    bound = lower_bound(problem, "fwd", 64 * 1024)
    assert bound.issued_read_bytes == 2 * io_bound_words(pairs, 2 * 128**2, 32 * 1024)


def test_the_theorems_exist():
    known = {t.name for file in theory.load(theory.root() / "theories") for t in file.theorems}
    binds = ("compulsory", "loads", "traffic", "small_memory")
    passes = [("fwd", b) for b in binds] + [("bwd", b) for b in binds[:2]]
    assert {bounds.theorem(*one, narrow=narrow) for one in passes for narrow in (True, False)} <= known
    proved = [one for one in passes if one[1] != "compulsory"]
    assert {bounds.theorem(*one, narrow=narrow) for one in proved for narrow in (True, False)} == set(FORMULAS)


# Nothing that runs is below


def packed(p, Q, K, V, O):
    """Query heads of a group share each key that is loaded: the fewest reads of all texts here."""
    for b, h, i in p.kernel("packed", p.batch, p.kv_heads, p.q_tiles):
        q = p.load(Q[h, :, i])
        m, l, acc = p.full((p.group, i, 1), -inf), p.zeros(p.group, i, 1), p.zeros(p.group, i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            s = p.mask(p.scale * (q @ k.T), i, j)
            m_new = maximum(m, rowmax(s))
            e = exp(s - m_new)
            alpha = exp(m - m_new)
            l[:] = alpha * l + rowsum(e)
            acc *= alpha
            acc += e @ v
            m[:] = m_new
        p.store(O[h, :, i], acc / l)


FORWARD = {f.__name__: f for f in (packed, *(a.forward for a in GENERAL))}
BACKWARD = {a.backward.__name__: a.backward for a in GENERAL if a.backward}


def check_bound(text, problem, sizes, direction):
    """A program that just fits moves no less than the bounds for that memory; its totals cover the compulsory ones."""
    program = record(text, problem.features)
    sram_bytes = on_chip(program, problem, sizes).total
    issued, floor = count(program, problem, sizes), compulsory(problem, direction)
    bound = lower_bound(problem, direction, sram_bytes)
    assert issued.read_bytes >= bound.issued_read_bytes
    assert issued.total_bytes >= bound.issued_bytes
    assert issued.read_bytes >= floor.read_bytes
    assert issued.write_bytes >= floor.write_bytes


formats = st.sampled_from(
    [{}, {"dtype": "fp8"}, {"dtype": "fp32"}, {"score_dtype": "fp8"}, {"dtype": "fp64", "accum_dtype": "fp64"}]
)
large = st.builds(
    lambda formats, **shape: AttentionProblem(**formats, **shape, heads=4),
    formats=formats,
    q_len=st.integers(1, 5000),
    kv_len=st.integers(1, 5000),
    kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 64),
    value_dim=st.integers(1, 64),
    mask=st.one_of(bands, st.builds(Band, left=st.integers(0, 3000), right=st.just(0))),
)
long_tiles = st.builds(TileSizes, st.integers(1, 900), st.integers(1, 900), st.just(1))


@pytest.mark.parametrize("text", FORWARD.values(), ids=FORWARD)
@given(problem=large, sizes=long_tiles)
def test_no_forward_pass_reads_less_than_the_bound(text, problem, sizes):
    check_bound(text, problem, sizes, "fwd")


@pytest.mark.parametrize("algorithm", GENERAL, ids=lambda a: a.name)
@settings(max_examples=30)
@given(problem=problems(), sizes=tiles)
def test_no_forward_pass_of_a_small_problem_moves_less(algorithm, problem, sizes):
    check_bound(algorithm.forward, problem, sizes, "fwd")


@pytest.mark.parametrize("text", BACKWARD.values(), ids=BACKWARD)
@settings(max_examples=30)
@given(problem=problems(), sizes=tiles)
def test_no_backward_pass_moves_less(text, problem, sizes):
    check_bound(text, problem, sizes, "bwd")


def test_the_bounds_are_within_a_factor_of_what_is_possible():
    """Large N, an even group packed into a tile: a bound that were far too low would go unnoticed otherwise."""
    problem = AttentionProblem(q_len=2**17, head_dim=64, dtype="fp32")
    sizes = TileSizes(2048, 1)
    program = record(packed)
    moved = count(program, problem, sizes)
    bound = lower_bound(problem, "fwd", on_chip(program, problem, sizes).total)
    assert 1 < moved.read_bytes / bound.issued_read_bytes < 2.2
    assert 1 < moved.total_bytes / bound.issued_bytes < 1.1


# Published bounds


@pytest.mark.parametrize(("n", "d", "kib"), [(8192, 64, 192), (65_536, 128, 99), (4096, 256, 48)])
def test_published_bounds_are_their_formulas(n, d, kib):
    problem, m = AttentionProblem(q_len=n, head_dim=d), kib * 1024 // 2
    words = {bound.name: bound.words for bound in published(problem, kib * 1024)}
    pairs = n * n
    anything = max(0, min(pairs * d * d // (8 * m), pairs // 8) - m)
    assert words.pop("any matrix multiplication, min(N²d²/8M, N²/8) - M") == anything
    if m >= d * d:
        assert words == {"N²d²/(M + 4d²) - M": pairs * d * d // (m + 4 * d * d) - m}
    else:
        ((name, got),) = words.items()
        assert "M < d²" in name
        assert got == pytest.approx(2 * pairs * d / m**0.5 - 2 * m - pairs, rel=0.01)


def test_every_published_bound_names_its_source():
    for head_dim, kib in itertools.product((64, 2048), (8, 512)):
        for bound in published(AttentionProblem(q_len=512, head_dim=head_dim), kib * 1024):
            assert "arXiv" in bound.source
            assert bound.words >= 0
