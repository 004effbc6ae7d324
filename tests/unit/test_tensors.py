"""Tensors in a kernel's memory: layouts, what is outside of them, poison; to and from the simulator's packed arrays."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware import AttentionProblem
from ioaware.reference import random_inputs, shapes
from ioaware_kernels.ptx.context import POISON
from ioaware_kernels.ptx.shadow import EMPTY, FULL, OUTSIDE
from ioaware_kernels.tensors import Tensor, far_apart, interleaved, packed, padded, unpacked

LAYOUTS = {layout.__name__: layout for layout in (packed, interleaved, padded, far_apart)}
SHAPES = [(1, 1, 1, 1), (2, 3, 4, 5), (3, 1, 7, 2), (1, 4, 1, 6), (2, 2, 5, 1)]
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def places(tensor):
    """The element offsets of a tensor from its buffer's address: first + strides, as a kernel computes them."""
    at = tensor.at
    batch, heads, rows, columns = tensor.shape
    return {
        (b, h, r, c): at.first + b * at.batch + h * at.head + r * at.row + c
        for b, h, r, c in product(range(batch), range(heads), range(rows), range(columns))
    }


@each_layout
@each_shape
def test_no_two_elements_share_a_place(layout, shape):
    tensor = Tensor("x", shape, layout)
    offsets = places(tensor)
    assert len(set(offsets.values())) == len(offsets) == np.prod(shape)
    _, inside = tensor.buffer.locate(4 * np.array([*offsets.values()], np.int64), 4)
    assert inside.all()


@each_layout
@each_shape
def test_columns_are_neighbours(layout, shape):
    offsets = places(Tensor("x", shape, layout))
    by_row = [[offsets[*row, c] for c in range(shape[3])] for row in product(*map(range, shape[:3]))]
    assert all(b - a == 1 for of_row in by_row for a, b in pairwise(of_row))


@each_layout
@each_shape
def test_values_are_where_a_kernel_looks_for_them(layout, shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tensor = Tensor("x", shape, layout).fill(values)
    assert (tensor.values == values).all()
    for index, offset in places(tensor).items():
        position, inside = tensor.buffer.locate(np.int64(4 * offset), 4)
        assert inside
        assert tensor.buffer.words.view(np.float32)[position // 4] == values[index]
        assert tensor.buffer.holds[position // 4] == FULL


@each_layout
def test_values_are_a_copy(layout):
    tensor = Tensor("x", (1, 2, 3, 4), layout).fill(np.ones((1, 2, 3, 4)))
    tensor.values[...] = 5
    assert (tensor.values == 1).all()


@each_layout
@each_shape
def test_an_empty_tensor_is_poison_everywhere(layout, shape):
    tensor = Tensor("x", shape, layout)
    assert (tensor.buffer.words == POISON).all()
    assert np.isnan(tensor.values).all()
    assert not tensor.is_written
    assert tensor.stray_elements() == 0
    assert np.count_nonzero(tensor.buffer.holds == EMPTY) == np.prod(shape)
    assert np.count_nonzero(tensor.buffer.holds == OUTSIDE) == len(tensor.buffer.words) - np.prod(shape)


@each_layout
def test_special_values_make_the_round_trip(layout):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32).reshape(1, 1, 2, 3)
    assert Tensor("x", values.shape, layout).fill(values).values.tobytes() == values.tobytes()


@pytest.mark.parametrize("layout", [packed, interleaved])
@each_shape
def test_a_contiguous_layout_has_no_gaps(layout, shape):
    tensor = Tensor("x", shape, layout)
    assert sorted(places(tensor).values()) == list(range(np.prod(shape)))
    assert len(tensor.buffer.words) == np.prod(shape)


def test_packed_and_interleaved_are_what_torch_means():
    values = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    assert (Tensor("x", values.shape).fill(values).buffer.words.view(np.float32) == values.ravel()).all()
    by_row = values.swapaxes(1, 2).ravel()  # (batch, rows, heads, columns)
    assert (Tensor("x", values.shape, interleaved).fill(values).buffer.words.view(np.float32) == by_row).all()


@each_shape
def test_padded_has_a_guard_on_every_side(shape):
    """Before the first and behind the last element, and behind every row, head and sequence."""
    tensor = Tensor("x", shape, padded)
    holds, offsets = tensor.buffer.holds, places(tensor)
    batch, heads, rows, columns = shape
    assert (holds[: min(offsets.values())] == OUTSIDE).all()
    assert (holds[max(offsets.values()) + 1 :] == OUTSIDE).all()
    assert min(offsets.values()) > 0
    assert max(offsets.values()) + 1 < len(holds)
    for b, h, r in product(range(batch), range(heads), range(rows)):
        assert holds[offsets[b, h, r, columns - 1] + 1] == OUTSIDE


def test_padded_strides_differ_from_one_another():
    """A kernel that takes one for another goes wrong."""
    at = Tensor("x", (2, 3, 4, 5), padded).at
    assert len({at.row, at.head, at.batch, 5, 20, 60}) == 6


@each_shape
def test_far_apart_is_beyond_32_bits_and_takes_no_memory(shape):
    tensor = Tensor("x", shape, far_apart)
    assert tensor.at.batch > 2**31
    assert len(tensor.buffer.words) == np.prod(shape)
    starts = [offset for (b, h, r, c), offset in places(tensor).items() if h == r == c == 0]
    assert all(b - a > 2**31 for a, b in pairwise(starts))
    size = tensor.at.size
    for b in range(shape[0] - 1):
        between = 4 * np.array([b * tensor.at.batch + size, (b + 1) * tensor.at.batch - 1], np.int64)
        assert not tensor.buffer.locate(between, 4)[1].any()


def test_an_address_that_lost_its_upper_bits_is_seen():
    """The second sequence lies 2^31 + 64 elements on: an offset of 32 bits lands elsewhere, in no tensor."""
    tensor = Tensor("x", (2, 1, 1, 4), far_apart)
    lost = 4 * ((tensor.at.batch) & 0xFFFFFFFF) - 4 * 2**32
    assert not tensor.buffer.locate(np.array([lost], np.int64), 4)[1].any()
    assert not tensor.buffer.locate(np.array([4 * 64], np.int64), 4)[1].any()


@each_layout
def test_written_is_every_element(layout):
    """One element that nobody wrote is enough; `note_written` sees what has lost its poison."""
    shape = (2, 2, 3, 4)
    tensor = Tensor("x", shape, layout)
    positions = [int(tensor.buffer.locate(np.int64(4 * offset), 4)[0]) // 4 for offset in places(tensor).values()]
    for position in positions[:-1]:
        tensor.buffer.words[position] = 0
    tensor.note_written()
    assert not tensor.is_written
    assert np.count_nonzero(tensor.buffer.holds == FULL) == len(positions) - 1
    tensor.buffer.words[positions[-1]] = 0
    tensor.note_written()
    assert tensor.is_written
    assert tensor.stray_elements() == 0


def test_note_written_leaves_guards_alone():
    tensor = Tensor("x", (1, 1, 2, 3), padded)
    tensor.buffer.words[0] = 0
    tensor.note_written()
    assert tensor.buffer.holds[0] == OUTSIDE
    assert tensor.stray_elements() == 1


def test_stray_elements_count_every_guard():
    tensor = Tensor("x", (2, 2, 3, 4), padded).fill(np.zeros((2, 2, 3, 4)))
    guards = np.flatnonzero(tensor.buffer.holds == OUTSIDE)
    for n, guard in enumerate(guards, 1):
        tensor.buffer.words[guard] = n
        assert tensor.stray_elements() == n
    assert (tensor.values == 0).all()


# ------------------------------------------------------------------------------------------------ packed arrays
PROBLEMS = [
    {"q_len": 3, "kv_len": 5, "head_dim": 2},
    {"q_len": 3, "kv_len": 5, "head_dim": 2, "heads": 6, "kv_heads": 2, "batch": 4},
    {"q_len": 1, "heads": 4, "kv_heads": 1, "head_dim": 3, "batch": 2},
]


@pytest.mark.parametrize("shape", PROBLEMS, ids=str)
def test_unpacked_element_by_element(shape):
    """Packed (kv_heads, group, batch * rows, columns) for Q, (kv_heads, batch * rows, columns) for K."""
    problem = AttentionProblem(**shape, dtype="fp32")
    inputs = random_inputs(problem)
    q, k = unpacked(problem, inputs["Q"]), unpacked(problem, inputs["K"])
    assert q.shape == (problem.batch, problem.heads, problem.q_len, problem.head_dim)
    assert k.shape == (problem.batch, problem.kv_heads, problem.kv_len, problem.head_dim)
    for b, h, i in product(range(problem.batch), range(problem.heads), range(problem.q_len)):
        packed_row = inputs["Q"][h // problem.group, h % problem.group, b * problem.q_len + i]
        assert (q[b, h, i] == packed_row).all()
    for b, h, j in product(range(problem.batch), range(problem.kv_heads), range(problem.kv_len)):
        assert (k[b, h, j] == inputs["K"][h, b * problem.kv_len + j]).all()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.sampled_from([*LAYOUTS]))
def test_a_simulator_array_makes_the_round_trip(batch, kv_heads, group, q_len, layout):
    problem = AttentionProblem(
        q_len=q_len, batch=batch, heads=kv_heads * group, kv_heads=kv_heads, head_dim=2, dtype="fp32"
    )
    array = np.arange(np.prod(shapes(problem)["Q"]), dtype=np.float32).reshape(shapes(problem)["Q"])
    as_kernel = unpacked(problem, array)
    tensor = Tensor("Q", as_kernel.shape, LAYOUTS[layout]).fill(as_kernel)
    assert (tensor.values.swapaxes(0, 1).reshape(array.shape) == array).all()
