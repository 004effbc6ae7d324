"""Plans of `ioaware bench`: sweeps, grids, groups, and problems that no memory holds."""

from __future__ import annotations

import pytest

from ioaware.algorithms import find
from ioaware.errors import InputError
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.bench import Plan, Point, grid, standard
from ioaware_kernels.bench.plan import QUERY_TILE, STANDARD, algorithms_for, fits_memory, tensor_bytes
from tests.unit.fake_machine import DEVICE

NAIVE = find("naive")
PROBLEM = AttentionProblem(q_len=1, dtype="fp32", heads=2)
T32, T64 = TileSizes(32, 32), TileSizes(64, 64)


def test_a_grid_is_every_combination():
    points = grid(["flash2"], PROBLEM, [8, 16], [4, 32], [T32, T64])
    wanted = {(d, n, t) for d in (4, 32) for n in (8, 16) for t in (T32, T64)}
    assert {(p.problem.head_dim, p.problem.q_len, p.tiles) for p in points} == wanted
    assert len(points) == 8
    assert {(p.problem.kv_len - p.problem.q_len, p.problem.heads, p.problem.value_dim) for p in points} == {
        (0, 2, 4), (0, 2, 32),
    }  # fmt: skip


def test_naive_has_no_tiles_to_choose():
    assert [p.tiles for p in grid(["naive", "flash2"], PROBLEM, [8], [4], [T32, T64])] == [None, T32, T64]


@pytest.mark.parametrize("device", STANDARD)
def test_the_standard_sweeps_allow_every_fit(device):
    """At least three points over N and d, and over M and over d at one M where tiles can be chosen; each point once."""
    sweeps = STANDARD[device]
    points = standard(device, PROBLEM)
    assert len(set(points)) == len(points)
    for name in ("naive", "flash2"):
        plain = [p.problem for p in points if p.algorithm == name and p.tiles is None]
        assert len({p.q_len for p in plain if p.head_dim == sweeps.head_dim}) >= 3
        head_dims = {p.head_dim for p in plain if p.q_len == sweeps.length}
        assert len(head_dims) >= (1 if name == "flash2" and sweeps.tiles else 3)
    tiled = [p for p in points if p.tiles]
    if sweeps.tiles:
        assert len({p.tiles for p in tiled if p.problem.head_dim == sweeps.head_dim}) >= 3
        assert len({p.problem.head_dim for p in tiled if p.tiles.q * p.problem.head_dim == QUERY_TILE}) >= 3
    assert {p.algorithm for p in tiled} <= {"flash2"}


def test_standard_sweeps_leave_out_what_a_kernel_does_not_take():
    """flash2_mma has builds for 64 and 128 columns."""
    points = standard("cuda", AttentionProblem(q_len=1, dtype="fp16"))
    assert {p.algorithm for p in points} == {"flash2_mma"}
    assert max(p.problem.head_dim for p in points) == 128


NAMES = [
    ("cpu", {"mask": "causal"}, ("naive", "flash2")),
    ("cuda", {}, ("naive", "flash2")),
    ("cuda", {"mask": "causal"}, ("flash2_causal",)),
    ("cuda", {"dtype": "fp16"}, ("flash2_mma",)),
    ("cuda", {"dtype": "fp64"}, ("naive",)),  # which refuses it with a sentence
]


@pytest.mark.parametrize(("device", "how", "names"), NAMES)
def test_what_is_measured_if_nothing_is_named(device, how, names):
    assert algorithms_for(device, AttentionProblem(**{"q_len": 8, "dtype": "fp32", **how})) == names


def test_a_group_has_all_that_is_measured_in_turns():
    points = grid(["naive", "flash2"], PROBLEM, [8, 16], [4])
    groups = Plan(points).groups
    assert [p.q_len for p in groups] == [8, 16]
    assert [[p.algorithm for p in found] for found in groups.values()] == [["naive", "flash2"]] * 2


def test_what_memory_cannot_hold_is_refused_with_the_longest_that_fits():
    point = Point("naive", AttentionProblem(q_len=10**6, dtype="fp32", score_dtype="fp32"))
    with pytest.raises(InputError, match=r"^--N=1,000,000: .* the nearest legal value is [0-9,]+$") as refused:
        fits_memory(point, NAIVE, DEVICE)
    longest = int(str(refused.value).rpartition(" ")[2].replace(",", ""))
    most = 0.8 * DEVICE.hbm_bytes
    assert tensor_bytes(point, NAIVE, longest) <= most < tensor_bytes(point, NAIVE, longest + 1)
    shorter = AttentionProblem(q_len=longest, dtype="fp32", score_dtype="fp32")
    fits_memory(point._replace(problem=shorter), NAIVE, DEVICE)
