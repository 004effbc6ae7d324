"""The CPU kernels: exact enough on every case and tile, and `verify` notices when they are not."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import get_num_threads, njit

from ioaware import reference
from ioaware.device import Device
from ioaware.errors import InputError
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.cases import Case, normal
from ioaware_kernels.cpu import prepare as prepare_module
from ioaware_kernels.cpu import tiles as tiles_module
from ioaware_kernels.cpu import verify as verify_module
from ioaware_kernels.cpu.matmul import ROWS, STRIP, VECTORS, add_product
from ioaware_kernels.cpu.prepare import NAMES, prepare
from ioaware_kernels.cpu.strip import aligned, exponentials, seen
from ioaware_kernels.cpu.tiles import default_tiles
from ioaware_kernels.cpu.vector import load
from ioaware_kernels.cpu.verify import matrix, verify
from ioaware_kernels.cpu.work import shared_out

TILES = [None, TileSizes(48, 17)]  # the second ends within strips and within blocks of rows


def problem_of(q_len=70, kv_len=90, **settings):
    return AttentionProblem(**{"q_len": q_len, "kv_len": kv_len, "head_dim": 20, "dtype": "fp32"} | settings)


# ------------------------------------------------------------------------------------------------ parts
@njit
def _exponentials(x, none, e):
    for n in range(VECTORS):
        exponentials(x, load(none, 0, n), load(none, 0, n), n, e)


def exp_of(x):
    rows = np.resize(np.asarray(x, np.float32), (-(-len(x) // STRIP), STRIP))
    e = np.empty_like(rows)
    _exponentials(rows, np.zeros((1, STRIP), np.float32), e)
    return e.reshape(-1)[: len(x)]


def test_exp_is_within_one_unit_in_the_last_place():
    lowest = -126 * log(2)
    dense = np.linspace(lowest, 88, 1_000_003).astype(np.float32)
    around = [np.float32(k * log(2) / 2) * (1 + np.arange(-9, 9) * 2.0**-23) for k in range(-251, 252)]
    tiny = np.float32(2.0) ** -np.arange(149)
    x = np.concatenate([dense, *around, tiny, -tiny]).astype(np.float32)
    x = x[(x > lowest) & (x <= 88)]
    exact = np.exp(x.astype(np.float64))
    assert np.abs(exp_of(x) / exact - 1).max() < 2.0**-23


def test_exp_of_special_values():
    x = [0.0, -0.0, -inf, -104.0, -88.0, -1e30, nan]
    np.testing.assert_array_equal(exp_of(x), np.float32([1, 1, 0, 0, 0, 0, nan]))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3, 40])
@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, 2 * ROWS + 3])
def test_a_product_is_added(rows, depth, transposed):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (rows, depth)), rng.integers(-9, 9, (depth, STRIP))
    c, rest = aligned(rows + 1), rng.integers(-9, 9, (rows + 1, STRIP))
    c[:] = rest
    left = a.astype(np.float32)
    add_product(c[:rows], np.ascontiguousarray(left.T).T if transposed else left, b.astype(np.float32))
    np.testing.assert_array_equal(c[:rows], rest[:rows] + a @ b)  # small integers: exact in any order
    np.testing.assert_array_equal(c[rows], rest[rows])


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_every_query_is_in_one_tile_and_causal_shares_are_even(q_len, tile_q, threads, heads, batch):
    work = shared_out(problem_of(q_len, heads=heads, batch=batch), q_len, tile_q, threads)
    assert len(work) == threads
    times, strips = np.zeros((heads, batch, q_len), int), set()
    for tile in work.ravel():
        times[tile["head"], tile["sequence"], tile["first"] : tile["last"]] += 1
        if tile["last"] > tile["first"]:
            count = -(-(tile["last"] - tile["first"]) // STRIP)
            strips |= {(int(tile["head"]), int(tile["sequence"]), int(tile["strip"]) + n) for n in range(count)}
    assert (times == 1).all()
    assert len(strips) == heads * batch * sum(-(-min(tile_q, q_len - f) // STRIP) for f in range(0, q_len, tile_q))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(-20, 40), st.integers(1, 20))
def test_seen_counts_keys(first, more, horizon, queries):
    assert seen.py_func(first, first + more, horizon, queries) == sum(
        key < horizon + queries - 1 for key in range(first, first + more)
    )


# ------------------------------------------------------------------------------------------------ kernels
@pytest.mark.parametrize("tiles", TILES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_case_verifies(name, tiles):
    reports = [verify(name, case, tiles=tiles) for case in matrix()]
    assert [(str(r.case), r.problems) for r in reports if not r.is_fine] == []
    assert {tuple(r.problems) for r in reports} == {("values", "memory", "determinism")}
    assert {tuple(r.differences) for r in reports} == {("O", "L")}
    assert {str(r.case.problem.band) for r in reports} == {"full", "causal"}


@settings(max_examples=25)
@given(st.data())
def test_any_problem_verifies(data):
    number = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    kv_heads, group = number(3), number(3)
    problem = problem_of(
        number(140), number(140), head_dim=number(70), heads=kv_heads * group, kv_heads=kv_heads, batch=number(2),
        mask=data.draw(st.sampled_from(["full", "causal"])),
    )  # fmt: skip
    report = verify(data.draw(st.sampled_from(NAMES)), Case(problem), tiles=TileSizes(number(160), number(160)))
    assert report.is_fine, report.problems


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_keys_is_zero(name):
    problem = problem_of(9, 4, mask="causal")
    ready = prepare(name, problem, reference.random_inputs(problem))
    ready.run()
    assert (ready.outputs["O"][0, 0, :5] == 0).all()
    assert (ready.outputs["L"][0, 0, :5] == -inf).all()
    assert (ready.outputs["O"][0, 0, 5:] != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_again_on_new_inputs(name):
    problem = problem_of()
    inputs, other = reference.random_inputs(problem), reference.random_inputs(problem, 1)
    ready, fresh = prepare(name, problem, inputs), prepare(name, problem, other)
    ready.run()
    for x in "QKV":
        inputs[x][...] = other[x]
    ready.run()
    fresh.run()
    assert all(values.tobytes() == fresh.outputs[n].tobytes() for n, values in ready.outputs.items())


def test_only_naive_holds_scores():
    """naive keeps S and P; what flash2 keeps does not depend on the lengths."""
    held = {}
    for name in NAMES:
        for n in (64 * STRIP, 128 * STRIP):
            problem = problem_of(n, n, head_dim=8)
            held[name, n] = prepare(name, problem, reference.random_inputs(problem), TileSizes(64, 64)).workspace_bytes
    small, large = 64 * STRIP, 128 * STRIP
    assert held["flash2", small] == held["flash2", large] < 2**20 * get_num_threads()
    assert held["naive", large] - held["naive", small] == 8 * (large**2 - small**2)


# ------------------------------------------------------------------------------------------------ tiles
@pytest.mark.parametrize("sram_bytes", [2**15, 2**18, 2**20, 2**24])
@pytest.mark.parametrize("head_dim", [1, 20, 64, 128, 1000])
def test_default_tiles_are_the_papers_in_whole_strips(head_dim, sram_bytes, monkeypatch):
    device = Device(name="x", kind="cpu", sm_count=1, sram_bytes=sram_bytes, hbm_bytes=2**30)
    monkeypatch.setattr(tiles_module, "this_cpu", lambda: device)
    tiles, d = default_tiles(problem_of(head_dim=head_dim)), max(head_dim, STRIP)
    assert tiles.kv == sram_bytes // 4 // (4 * d)
    assert tiles.q % STRIP == 0
    assert min(tiles.kv, head_dim) <= tiles.q < min(tiles.kv, head_dim) + STRIP


def test_tiles_are_those_the_loops_use():
    problem = problem_of(70, 90)
    inputs = reference.random_inputs(problem)
    assert prepare("flash2", problem, inputs, TileSizes(48, 200)).tiles == TileSizes(48, 90)
    assert prepare("naive", problem, inputs, TileSizes(10**15, 7)).tiles == TileSizes(70, 7)
    chosen = default_tiles(problem)
    assert prepare("flash2", problem, inputs).tiles == TileSizes(min(chosen.q, 70), min(chosen.kv, 90))


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "fp16"}, "dtype=fp16: .* nearest legal value is fp32"),
        ({"score_dtype": "fp16"}, "score_dtype=fp16: .* is fp32"),
        ({"accum_dtype": "fp64"}, "accum_dtype=fp64: .* is fp32"),
        ({"value_dim": 8}, "value_dim=8: .* is 20"),
        ({"direction": "bwd"}, "direction=bwd: .* is fwd"),
        ({"dropout": 0.1}, "dropout=0.1: .* is 0.0"),
        ({"padding": True}, "padding=True: .* is False"),
        ({"q_len": (3, 5), "kv_len": 5}, r"q_len=\(3, 5\): .* is 5"),
        ({"mask": Band(3, 0)}, r"mask=window:3,0: .* is causal"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_computed_is_refused(name, settings, sentence):
    problem = problem_of(**settings)
    with pytest.raises(InputError, match=sentence):
        prepare(name, problem, reference.random_inputs(replace(problem, dtype="fp32", score_dtype="fp32")))


@pytest.mark.parametrize("tiles", [(0, 64), (64, 0), (-5, 3), (64, 2.5), (10**16, 64)])
def test_tiles_that_are_none_are_refused(tiles):
    problem = problem_of()
    with pytest.raises(InputError, match="tile_"):
        prepare("flash2", problem, reference.random_inputs(problem), TileSizes(*tiles))


@pytest.mark.parametrize("name", ["Q", "K", "V"])
@pytest.mark.parametrize("spoil", [lambda a: a[..., :-1], lambda a: a[..., :-1, :], lambda a: a.astype(np.float64)])
def test_inputs_of_another_problem_are_refused(name, spoil):
    """The kernel would read past their end."""
    problem = problem_of()
    inputs = reference.random_inputs(problem)
    inputs[name] = spoil(inputs[name])
    with pytest.raises(InputError, match=rf"{name}=float.* nearest legal value is float32 \("):
        prepare("flash2", problem, inputs)


def test_an_unknown_kernel_is_refused():
    problem = problem_of()
    with pytest.raises(InputError, match="CPU kernel 'flash3' is unknown, the nearest is 'flash2'"):
        prepare("flash3", problem, reference.random_inputs(problem))


def test_scores_that_memory_does_not_hold_are_refused(monkeypatch):
    problem = problem_of()
    inputs = reference.random_inputs(problem)
    small = Device(name="x", kind="cpu", sm_count=1, sram_bytes=2**14, hbm_bytes=2**16)
    monkeypatch.setattr(prepare_module, "this_cpu", lambda: small)
    with pytest.raises(InputError, match=r"naive: S and P take .* this machine has 65,536 B"):
        prepare("naive", problem, inputs, TileSizes(32, 32))
    prepare("flash2", problem, inputs, TileSizes(32, 32))


# ------------------------------------------------------------------------------------------------ mutants
def mutant(spoil):
    """A `prepare` whose kernel is followed by something wrong."""

    def spoiled(name, problem, inputs, tiles=None):
        ready = prepare(name, problem, inputs, tiles)

        def run():
            ready.run()
            spoil(ready.outputs, inputs)

        return ready._replace(run=run)

    return spoiled


def poison_last(outputs, _):
    outputs["O"][..., -1, -1] = np.int32(-1).view(np.float32)


def shift_logarithm(outputs, _):
    outputs["L"][0, 0, 3] += np.float32(1e-3)


def no_number(outputs, _):
    outputs["O"][0, 0, 0, 0] = nan


def write_input(_, inputs):
    inputs["K"][0, -1, 0] += 1


def thread_count(outputs, _):
    outputs["L"][0, 0, 0] = np.nextafter(outputs["L"][0, 0, 0], np.float32(get_num_threads() * 1e3 - 1.5e3))


MUTANTS = {
    poison_last: "memory", shift_logarithm: "values", no_number: "values", write_input: "memory",
    thread_count: "determinism",
}  # fmt: skip


@pytest.mark.parametrize("spoil", MUTANTS, ids=lambda f: f.__name__)
def test_verify_catches(spoil, monkeypatch):
    monkeypatch.setattr(verify_module, "prepare", mutant(spoil))
    report = verify("flash2", Case(problem_of(mask="causal"), normal))
    assert not report.is_fine
    assert report.problems[MUTANTS[spoil]]


@pytest.mark.parametrize("name", NAMES)
def test_verify_catches_another_mask_scale_and_head(name, monkeypatch):
    problem = problem_of(heads=4, kv_heads=2)
    case = Case(problem, normal)

    def wrong_mask(name, problem, inputs, tiles=None):
        return prepare(name, replace(problem, mask="causal"), inputs, tiles)

    def wrong_scale(name, problem, inputs, tiles=None):
        return prepare(name, problem, inputs | {"Q": inputs["Q"] * np.float32(1.001)}, tiles)

    def wrong_head(name, problem, inputs, tiles=None):
        return prepare(name, problem, inputs | {"V": inputs["V"][::-1]}, tiles)

    for wrong in (wrong_mask, wrong_scale, wrong_head):
        monkeypatch.setattr(verify_module, "prepare", wrong)
        assert verify(name, case).problems["values"], wrong.__name__
