"""The program language: a broken program is refused at its line with the way out, and what is meant is recorded.

The broken line of each program carries the comment `# here`; a message must name it.
"""

import dataclasses
import inspect
import re
from math import inf

import numpy as np
import pytest

from ioaware import reference
from ioaware.algorithms import ALGORITHMS
from ioaware.algorithms.flash2 import flash2, flash2_backward
from ioaware.errors import ProgramError
from ioaware.problem import AttentionProblem, Features
from ioaware.program import exp, log, maximum, record, rowmax, rowsum
from ioaware.program.nodes import Load, Loop, Op, Store
from ioaware.readers.count import count, has_closed_form
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from tests.strategies import GENERAL

# A square problem in square tiles: what is wrong here may fit by accident, and must be refused all the same.
PROBLEM = AttentionProblem(
    q_len=8, kv_len=8, head_dim=4, heads=2, kv_heads=1, batch=2, dtype="fp64", accum_dtype="fp64"
)
TILES = TileSizes(4, 4)


def here(function):
    """(line number, text) of the line that is marked."""
    lines, first = inspect.getsourcelines(function)
    return next((first + n, line.strip()) for n, line in enumerate(lines) if "# here" in line)


def refused(function, features=None):
    """The reason for which recording is refused, without the line that it must name."""
    with pytest.raises(ProgramError) as error:
        record(function, features or Features())
    number, text = here(function)
    start = f"line {number}: `{text}`: "
    assert str(error.value).startswith(start)
    return str(error.value).removeprefix(start)


def run(function, problem=PROBLEM):
    program = record(function, problem.features)
    return execute(program, problem, TILES, reference.random_inputs(problem))


def refused_when_run(function):
    """The reason for which executing is refused."""
    with pytest.raises(ProgramError) as error:
        run(function)
    return str(error.value)


def grid(p):
    return p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles)


# Refused when recorded: shapes


def wrong_product(p, Q, K, O):
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
        for j in p.loop(p.kv_tiles):
            q @ p.load(K[h, j])  # here


def wrong_sum(p, Q, K, O):
    for b, h, g, i in grid(p):
        for j in p.loop(p.kv_tiles):
            p.load(Q[h, g, i]) + p.load(K[h, j])  # here


def transpose_of_a_stack(p, Q, O):
    for b, h in p.kernel("attend", p.batch, p.kv_heads):
        rowsum(p.load(Q[h, :, :]).T)  # here


def store_of_another_shape(p, Q, O):
    for b, h, g, i in grid(p):
        p.store(O[h, g, i], p.load(Q[h, g, i]))  # here  (head_dim is not value_dim, even if both are 4)


def update_of_another_shape(p, Q, O):
    for b, h, g, i in grid(p):
        l = p.zeros(i, 1)
        l += p.load(Q[h, g, i])  # here


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (wrong_product, "dot: [|i|, d] @ [|j|, d]: inner sizes d and |j| differ"),
        (wrong_sum, "add: shapes [|i|, d] and [|j|, d] do not fit"),
        (transpose_of_a_stack, ".T needs a matrix, this is [g, N_q, d]"),
        (store_of_another_shape, "the piece of O is [|i|, d_v], the value is [|i|, d]"),
        (update_of_another_shape, "cannot put [|i|, d] into [|i|, 1]"),
    ],
)
def test_a_wrong_shape_is_refused(program, reason):
    assert refused(program) == reason


# Refused when recorded: indices


def query_tile_of_keys(p, K):
    for b, h, g, i in grid(p):
        p.load(K[h, i])  # here


def heads_exchanged(p, Q):
    for b, h, g, i in grid(p):
        p.load(Q[g, h, i])  # here


def batch_as_an_index(p, Q):
    for b, h, g, i in grid(p):
        p.load(Q[b, h, g, i])  # here


def too_many_indices(p, K):
    for b, h, j in p.kernel("attend", p.batch, p.kv_heads, p.kv_tiles):
        p.load(K[h, j, :, :])  # here


def index_after_its_loop(p, Q, K):
    for b, h in p.kernel("attend", p.batch, p.kv_heads):
        for j in p.loop(p.kv_tiles):
            p.load(K[h, j])
        p.load(K[h, j])  # here


def shape_after_its_loop(p, Q):
    for b, h in p.kernel("attend", p.batch, p.kv_heads):
        for j in p.loop(p.kv_tiles):
            p.zeros(j, 1)
        p.zeros(j, 1)  # here


def number_after_its_loop(p, Q):
    parts = p.scratch("parts", p.one_per(p.kv_tiles), p.one)
    for b in p.kernel("attend", p.batch):
        for j in p.loop(p.kv_tiles):
            p.store(parts[j.number], p.zeros(1))
        p.load(parts[j.number])  # here


def position_instead_of_a_tile(p, Q):
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q):
        p.load(Q[h, g, i])  # here


def a_plain_number(p, Q):
    for b, h, g, i in grid(p):
        p.load(Q[0, g, i])  # here


def part_of_an_axis(p, Q):
    for b, h, g, i in grid(p):
        p.load(Q[h, g, i, 0:2])  # here


def visible_of_another_axis(p, K):
    for b, h, g, i in grid(p):
        p.load(K[h, p.seen(p.q_tiles, i)])  # here


def not_a_piece(p, Q):
    for b, h, g, i in grid(p):
        p.load(Q)  # here


VISIBLE = "p.visible takes tiles and a loop index over tiles of the other axis, like p.visible(p.kv_tiles, i)"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (query_tile_of_keys, "K: axis 1 is kv_len, but index i walks q_len"),
        (heads_exchanged, "Q: axis 0 is kv_heads, but index g walks group"),
        (batch_as_an_index, "Q: axis 0 is kv_heads, but index b walks batch"),
        (too_many_indices, "K has 3 axes, 4 indices are given"),
        (index_after_its_loop, "the loop over kv_len in tiles of B_c has ended: its index j means nothing here"),
        (shape_after_its_loop, "the loop over kv_len in tiles of B_c has ended: its index j means nothing here"),
        (number_after_its_loop, "the loop over kv_len in tiles of B_c has ended: its index j means nothing here"),
        (position_instead_of_a_tile, "Q: axis 2 (q_len) is walked in tiles; use p.tiles"),
        (a_plain_number, "Q: index 0 is neither a loop index, .number, p.seen(...) nor `:`"),
        (part_of_an_axis, "Q: index slice(0, 2, None) is neither a loop index, .number, p.seen(...) nor `:`"),
        (visible_of_another_axis, VISIBLE),
        (not_a_piece, "load takes pieces of tensors, like Q[h, g, i]"),
    ],
)
def test_a_wrong_index_is_refused(program, reason):
    assert refused(program) == reason


# Refused when recorded: what is carried from one iteration to the next


def carried_variable(p, Q, K, O):
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
        m = p.full((i, 1), -inf)
        for j in p.loop(p.kv_tiles):
            s = q @ p.load(K[h, j]).T
            m = maximum(m, rowmax(s))  # here


def subtracted_in_place(p, Q):
    for b, h, g, i in grid(p):
        total = p.zeros(i, p.head_dim)
        for _ in p.loop(p.kv_tiles):
            total -= p.load(Q[h, g, i])  # here  (there is no in-place subtraction: this makes a new value)


def value_after_its_loop(p, Q, V, O):
    for b, h, g, i in grid(p):
        for j in p.loop(p.kv_tiles):
            v = p.load(V[h, j])
        acc = p.zeros(i, p.value_dim)
        acc += p.zeros(i, 1) * rowsum(v).T  # here


def stored_after_its_loop(p, Q, dQ):
    for b, h, g, i in grid(p):
        for _ in p.loop(p.kv_tiles):
            q = p.load(Q[h, g, i])
        p.store(dQ[h, g, i], q)  # here


def from_another_kernel(p, Q, dQ):
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
    for b, h, g, i in p.kernel("again", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], q)  # here


@pytest.mark.parametrize(
    "program", [carried_variable, subtracted_in_place, value_after_its_loop, stored_after_its_loop, from_another_kernel]
)
def test_a_value_does_not_leave_its_iteration(program):
    reason = refused(program)
    assert re.match(r"this value was made on line \d+, inside a loop iteration that has ended", reason)
    assert "make it before the loop with p.zeros/p.full and update it in place (acc += ..., m[:] = ...)" in reason


def test_the_line_that_made_the_value_is_named():
    reason = refused(stored_after_its_loop)
    assert f"made on line {here(stored_after_its_loop)[0] - 1}," in reason


def updates_a_loaded_value(p, Q):
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
        q *= 2.0  # here


def updates_a_view(p, Q):
    for b, h, g, i in grid(p):
        acc = p.zeros(i, p.head_dim)
        view = acc.T
        view += 1.0  # here


def sets_a_computed_value(p, Q):
    for b, h, g, i in grid(p):
        q = exp(p.load(Q[h, g, i]))
        q[:] = p.zeros(i, p.head_dim)  # here


@pytest.mark.parametrize("program", [updates_a_loaded_value, updates_a_view, sets_a_computed_value])
def test_only_carried_values_are_updated(program):
    reason = refused(program)
    assert re.match(r"the value .*line \d+ is not carried: ", reason)
    assert "p.zeros/p.full" in reason


def sets_a_part(p, Q):
    for b, h, g, i in grid(p):
        m = p.zeros(i, 1)
        m[0] = 1.0  # here


def test_only_whole_values_are_set():
    assert refused(sets_a_part) == "only a whole value can be set: m[:] = ..."


# Refused when recorded: Python's own control flow on data


def branches(p, Q):
    for b, h, g, i in grid(p):
        if p.load(Q[h, g, i]):  # here
            pass


def branches_on_a_maximum(p, Q):
    for b, h, g, i in grid(p):
        m = rowmax(p.load(Q[h, g, i]))
        while not m:  # here
            pass


@pytest.mark.parametrize("program", [branches, branches_on_a_maximum])
def test_a_branch_on_a_value_is_refused(program):
    assert refused(program).startswith("a program cannot branch on a value: the loop body is recorded once")


def breaks(p, Q, O):
    for b, h, g, i in grid(p):
        acc = p.zeros(i, p.value_dim)
        for j in p.loop(p.kv_tiles):  # here
            break
        p.store(O[h, g, i], acc)


def breaks_an_outer_loop(p, Q):
    for b, h in p.kernel("attend", p.batch, p.kv_heads):  # here
        for j in p.loop(p.kv_tiles):
            pass
        break


def returns(p, Q, O):
    for b, h, g, i in grid_of_returns(p):
        p.store(O[h, g, i], p.zeros(i, p.value_dim))
        return


def grid_of_returns(p):
    return p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles)


@pytest.mark.parametrize("program", [breaks, breaks_an_outer_loop])
def test_a_loop_is_not_left_early(program):
    reason = refused(program)
    assert reason.startswith("`break` or `return` leaves this loop")
    assert "p.visible" in reason


def test_a_return_leaves_a_loop_early():
    with pytest.raises(ProgramError, match="`break` or `return` leaves this loop"):
        record(returns)


def breaks_before_another_kernel(p, Q, O):
    for b, h, g, i in p.kernel("one", p.batch, p.kv_heads, p.group, p.q_tiles):  # here
        break
    for b, h, g, i in p.kernel("two", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(O[h, g, i], p.zeros(i, p.value_dim))


def test_the_loop_that_was_left_is_blamed():
    assert refused(breaks_before_another_kernel).startswith("`break` or `return` leaves this loop")


def grows(p, Q):
    seen = []
    for b, h, g, i in grid(p):
        seen.append(i)
        for _ in seen:
            p.load(Q[h, g, i])


def test_a_body_that_grows_is_refused():
    with pytest.raises(ProgramError, match="the loop body changes from one iteration to the next"):
        record(grows)


def grows_inside(p, Q):
    seen = []
    for b, h, g, i in grid(p):
        seen.append(i)
        for _ in p.loop(p.kv_tiles):
            for _ in seen:
                p.load(Q[h, g, i])


def doubles_a_python_number(p, Q, K, V, O):
    for b, h, g, i in grid(p):
        acc, c = p.zeros(i, p.value_dim), 1.0
        for j in p.loop(p.kv_tiles):
            q, k, v = p.load(Q[h, g, i], K[h, j], V[h, j])
            acc += c * ((q @ k.T) @ v)
            c *= 2
        p.store(O[h, g, i], acc)


def takes_turns(p, Q, dQ):
    for b, h, g, i in grid(p):
        acc, even = p.zeros(i, p.head_dim), True
        for _ in p.loop(p.kv_tiles):
            q = p.load(Q[h, g, i])
            acc += exp(q) if even else q + q
            even = not even
        p.store(dQ[h, g, i], acc)


@pytest.mark.parametrize("program", [doubles_a_python_number, takes_turns, grows_inside])
def test_a_body_that_changes_is_refused(program):
    with pytest.raises(ProgramError, match="the loop body changes from one iteration to the next"):
        record(program)


def swaps_accumulators(p, Q, V, O):
    for b, h, g, i in grid(p):
        even, odd = p.zeros(i, p.head_dim), p.zeros(i, p.head_dim)
        for _ in p.loop(p.kv_tiles):
            even += p.load(Q[h, g, i])
            even, odd = odd, even


def swaps_operands(p, Q, K, V, O):
    for b, h, g, i in grid(p):
        one, two, acc = p.full((i, 1), 1.0), p.full((i, 1), 2.0), p.zeros(i, p.head_dim)
        for _ in p.loop(p.kv_tiles):
            acc += one * p.load(Q[h, g, i])
            one, two = two, one


def loads_another_piece(p, Q, K):
    for b, h, g, i in grid(p):
        whole = True
        for j in p.loop(p.kv_tiles):
            p.load(K[h, :] if whole else K[h, j])
            whole = not whole


@pytest.mark.parametrize("program", [swaps_accumulators, swaps_operands, loads_another_piece])
def test_a_body_of_other_operands_is_refused(program):
    with pytest.raises(ProgramError, match="the loop body changes from one iteration to the next"):
        record(program)


def first_tile_only(p, Q):
    for b, h, g, i in grid(p):
        if i == 0:  # here
            p.load(Q[h, g, i])


def compares_a_value(p, Q):
    for b, h, g, i in grid(p):
        if rowmax(p.load(Q[h, g, i])) == 0.0:  # here
            p.load(Q[h, g, i])


def orders_a_value(p, Q):
    for b, h, g, i in grid(p):
        if rowmax(p.load(Q[h, g, i])) > 0.0:  # here
            p.load(Q[h, g, i])


@pytest.mark.parametrize("program", [first_tile_only, compares_a_value])
def test_a_comparison_is_refused(program):
    refused(program)


def first_tile_by_truth(p, Q):
    for b, h, g, i in grid(p):
        if not i:  # here
            p.load(Q[h, g, i])


def first_tile_by_number(p, Q):
    for b, h, g, i in grid(p):
        if i.number == 0:  # here
            p.load(Q[h, g, i])


@pytest.mark.parametrize("program", [first_tile_by_truth, first_tile_by_number])
def test_a_branch_on_an_index_is_refused(program):
    refused(program)


def negates(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], -p.load(Q[h, g, i]))  # here


def inverts(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], 1.0 / p.load(Q[h, g, i]))  # here


@pytest.mark.parametrize("program", [orders_a_value, negates, inverts])
def test_arithmetic_that_the_language_has_not_is_refused(program):
    refused(program)


def stores_a_number(p, Q, O):
    for b, h, g, i in grid(p):
        p.store(O[h, g, i], 0.0)  # here


def multiplies_by_a_number(p, Q, O):
    for b, h, g, i in grid(p):
        p.load(Q[h, g, i]) @ 2.0  # here


@pytest.mark.parametrize("program", [stores_a_number, multiplies_by_a_number])
def test_a_number_where_a_value_is_needed_is_refused(program):
    refused(program)


# Refused when recorded: tensors and kernels


def stores_to_an_input(p, Q):
    for b, h, g, i in grid(p):
        p.store(Q[h, g, i], p.zeros(i, p.head_dim))  # here


def adds_to_an_input(p, dO):
    for b, h, g, i in grid(p):
        p.add(dO[h, g, i], p.zeros(i, p.value_dim))  # here


def scratch_twice(p, Q):
    p.scratch("S", p.q, p.kv)
    p.scratch("S", p.q, p.kv)  # here


def scratch_named_like_an_input(p, Q):
    p.scratch("Q", p.q, p.kv)  # here


def kernel_in_a_loop(p, Q):
    for b in p.loop(p.batch):
        for h in p.kernel("attend", p.kv_heads):  # here
            pass


def kernel_in_a_kernel(p, Q):
    for b in p.kernel("attend", p.batch):
        for h in p.kernel("again", p.kv_heads):  # here
            pass


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (stores_to_an_input, "Q is an input; it cannot be stored to"),
        (adds_to_an_input, "dO is an input; it cannot be stored to"),
        (scratch_twice, "a tensor called 'S' exists already"),
        (scratch_named_like_an_input, "a tensor called 'Q' exists already"),
        (kernel_in_a_loop, "a kernel launch cannot be inside a loop"),
        (kernel_in_a_kernel, "a kernel launch cannot be inside a loop"),
    ],
)
def test_a_wrong_tensor_or_kernel_is_refused(program, reason):
    assert refused(program) == reason


def unknown_tensor(p, Q, Padding):
    pass


def test_an_unknown_tensor_gets_the_nearest_one():
    with pytest.raises(
        ProgramError, match=r"^unknown_tensor: no tensor is called 'Padding', the nearest is 'P_dropped'.*Q, "
    ):
        record(unknown_tensor)


def two_kernels_of_one_name(p, Q, dQ):
    for b, h, g, i in p.kernel("copy", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.load(Q[h, g, i]))
    for b, h, g, i in p.kernel("copy", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.scale * p.load(dQ[h, g, i]))


def test_two_launches_have_two_names():
    with pytest.raises(ProgramError, match="a kernel called 'copy' exists already"):
        record(two_kernels_of_one_name)


def crosses_blocks(p, Q, O):
    total = p.zeros(1, 1)  # here  (every thread block has on-chip memory of its own)
    for b, h, g, i in grid(p):
        total += 1.0
        p.store(O[h, g, i], p.zeros(i, p.value_dim) + total)


def test_a_value_does_not_cross_thread_blocks():
    refused(crosses_blocks)


def visible_to_a_tile_that_is_gone(p, K):
    for b, h, g, i in grid(p):
        pass
    for b, h in p.kernel("again", p.batch, p.kv_heads):
        for j in p.visible(p.kv_tiles, i):  # here
            p.load(K[h, j])


def visible_to_its_own_axis(p, Q):
    for b, h, g, i in grid(p):
        for i2 in p.visible(p.q_tiles, i):  # here
            p.load(Q[h, g, i2])


def visible_to_a_head(p, K):
    for b, h in p.kernel("attend", p.batch, p.kv_heads):
        for j in p.visible(p.kv_tiles, h):  # here
            p.load(K[h, j])


@pytest.mark.parametrize("program", [visible_to_a_tile_that_is_gone, visible_to_its_own_axis, visible_to_a_head])
def test_a_wrong_visible_loop_is_refused(program):
    refused(program)


def mask_turned(p, Q, K, O):
    for b, h, g, i in grid(p):
        for j in p.visible(p.kv_tiles, i):
            p.mask(p.load(Q[h, g, i]) @ p.load(K[h, j]).T, j, i)  # here


def mask_of_another_shape(p, Q, K, O):
    for b, h, g, i in grid(p):
        for j in p.visible(p.kv_tiles, i):
            p.mask(p.load(Q[h, g, i]), i, j)  # here


def dropout_turned(p, Q, K, O):
    for b, h, g, i in grid(p):
        for j in p.visible(p.kv_tiles, i):
            p.drop(p.load(Q[h, g, i]) @ p.load(K[h, j]).T, h, g, j, i)  # here


@pytest.mark.parametrize("program", [mask_turned, mask_of_another_shape, dropout_turned])
def test_a_mask_of_the_wrong_tile_is_refused(program):
    refused(program, Features(dropout=True, masked=True))


def tiles_of_nothing(p, Q):
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.tiles(p.q, 0)):  # here
        p.load(Q[h, g, i])


def test_a_step_is_positive():
    refused(tiles_of_nothing)


def tiles_of_a_fraction(p, Q):
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.tiles(p.q, 2.5)):  # here
        p.load(Q[h, g, i])


def tiles_of_heads(p, Q):
    for b, h in p.kernel("attend", p.batch, p.tiles(p.kv_heads, 2)):  # here
        p.load(Q[h])


def tiles_of_columns(p, Q):
    for b, h, g, i in grid(p):
        for x in p.loop(p.tiles(p.head_dim, 16)):  # here
            p.load(Q[h, g, i, x])


@pytest.mark.parametrize("program", [tiles_of_a_fraction, tiles_of_heads, tiles_of_columns])
def test_only_queries_and_keys_are_cut_into_tiles_of_whole_rows(program):
    refused(program)


def scratch_of_a_number_format(p, Q):
    p.scratch("S", p.kv_heads, p.group, p.q, p.kv, dtype="fp32")  # here  (a role: score, accum, ...)


def test_an_unknown_role_is_refused():
    refused(scratch_of_a_number_format)


def heads_of_dropout_exchanged(p, Q, K, O):
    for b, h, g, i in grid(p):
        for j in p.visible(p.kv_tiles, i):
            p.drop(p.load(Q[h, g, i]) @ p.load(K[h, j]).T, g, h, i, j)  # here


def kept_mask_turned(p, K):
    for b, h, g, i in grid(p):
        for j in p.visible(p.kv_tiles, i):
            p.keep(h, g, j, i)  # here


@pytest.mark.parametrize("program", [heads_of_dropout_exchanged, kept_mask_turned])
def test_dropout_of_the_wrong_index_is_refused(program):
    refused(program, Features(dropout=True))


# Refused when run: what depends on which elements are touched


def not_stored(p, Q, O):
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.load(Q[h, g, i])


def batch_left_out(p, Q, O):
    for h, g, i in p.kernel("attend", p.kv_heads, p.group, p.q_tiles):
        p.store(O[h, g, i], p.zeros(i, p.value_dim))


@pytest.mark.parametrize(("program", "missing"), [(not_stored, 128), (batch_left_out, 64)])
def test_an_output_that_is_not_stored_is_refused(program, missing):
    """2 sequences x 8 queries x 2 heads x 4 columns; without a loop over the batch, one sequence of two."""
    message = refused_when_run(program)
    assert message.startswith(f"{program.__name__}: {missing} of 128 elements of the output O were never stored")


def reads_before_it_writes(p, Q, O):
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.value_dim)
    for b, h, g, i in grid(p):
        p.store(O[h, g, i], p.load(S[h, g, i]))  # here


def reads_what_is_half_written(p, Q, O):
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.value_dim)
    for b, h, g, i in grid(p):
        p.store(S[h, g, i], p.zeros(i, p.value_dim))
        p.load(S[h, g, :])  # here


def reads_an_output_before_it_writes(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], p.load(dQ[h, g, i]))  # here


@pytest.mark.parametrize(
    ("program", "tensor"),
    [(reads_before_it_writes, "S"), (reads_what_is_half_written, "S"), (reads_an_output_before_it_writes, "dQ")],
)
def test_a_read_before_a_write_is_refused(program, tensor):
    assert refused_when_run(program) == f"line {here(program)[0]}: {tensor} is read before it was stored"


def adds_before_it_writes(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.add(dQ[h, g, i], p.load(Q[h, g, i]))  # here


def test_an_add_to_what_was_never_stored_is_refused():
    line = here(adds_before_it_writes)[0]
    assert refused_when_run(adds_before_it_writes) == f"line {line}: adds to dQ before it was stored"


def blocks_overwrite_each_other(p, Q, K, dK):
    for b, h, g, j in p.kernel("gradients", p.batch, p.kv_heads, p.group, p.kv_tiles):
        p.store(dK[h, j], p.load(K[h, j]))  # here  (one dK per group of query heads)


def row_blocks_overwrite_columns(p, Q, dK):
    for b, h, i in p.kernel("gradients", p.batch, p.kv_heads, p.q_tiles):
        p.store(dK[h], p.zeros(p.kv, p.head_dim))  # here


@pytest.mark.parametrize("program", [blocks_overwrite_each_other, row_blocks_overwrite_columns])
def test_a_race_between_thread_blocks_is_refused(program):
    message, line = refused_when_run(program), here(program)[0]
    assert message.startswith(f"line {line}: two thread blocks of 'gradients' store to the same elements of dK;")
    assert "p.add" in message


def a_block_may_store_twice(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], p.zeros(i, p.head_dim))
        p.store(dQ[h, g, i], p.load(Q[h, g, i]))


def kernels_may_store_to_the_same_elements(p, Q, dQ):
    for b, h, g, i in p.kernel("zero", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.zeros(i, p.head_dim))
    for b, h, g, i in p.kernel("copy", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.load(Q[h, g, i]))


def blocks_may_add_to_the_same_elements(p, Q, dQ):
    for b, h, g, i in p.kernel("zero", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.zeros(i, p.head_dim))
    for b, h, g, i, j in p.kernel("add", p.batch, p.kv_heads, p.group, p.q_tiles, p.kv_tiles):
        p.add(dQ[h, g, i], p.load(Q[h, g, i]))


@pytest.mark.parametrize(
    ("program", "times"),
    [
        (a_block_may_store_twice, 1),
        (kernels_may_store_to_the_same_elements, 1),
        (blocks_may_add_to_the_same_elements, 2),  # 8 keys in tiles of 4
    ],
)
def test_what_is_no_race_runs(program, times):
    inputs = reference.random_inputs(PROBLEM)
    np.testing.assert_array_equal(run(program).tensors["dQ"], times * inputs["Q"])


def reads_what_another_block_writes(p, Q, dQ):
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.head_dim)
    for b, h, g, i in p.kernel("zero", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(S[h, g, i], p.zeros(i, p.head_dim))
        p.store(dQ[h, g, i], p.zeros(i, p.head_dim))
    for b, h, g, i in p.kernel("sum", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.load(S[h, g, :])
        p.store(S[h, g, i], p.load(Q[h, g, i]))


def test_a_read_of_what_another_block_writes_is_a_race():
    assert "two thread blocks" in refused_when_run(reads_what_another_block_writes)


def test_a_missing_input_is_named():
    with pytest.raises(ProgramError, match="flash2 needs the input V; inputs: Q, K"):
        execute(record(flash2), PROBLEM, TILES, dict.fromkeys("QK", np.zeros((1, 2, 16, 4))))


# What is recorded


def shape_of(body):
    """The nest without its names: kinds of nodes, and what is walked."""
    out = []
    for node in body:
        if isinstance(node, Loop):
            out.append((str(node.index.over), node.kernel, shape_of(node.body)))
        else:
            piece = node.piece.tensor.name if isinstance(node, (Load, Store)) else None
            out.append((type(node).__name__, piece or node.kind))
    return out


def copies(p, Q, dQ):
    for b, h, g, i in p.kernel("copy", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.scale * p.load(Q[h, g, i]))


def test_the_nest_is_the_text():
    body = [("Load", "Q"), ("Op", "mul"), ("Store", "dQ")]
    for walked in ("q_len in tiles of B_r", "group", "kv_heads", "batch"):
        body = [(walked, "copy", body)]
    assert shape_of(record(copies).body) == body


def test_a_body_is_recorded_once():
    loads = []

    def collect(body):
        for node in body:
            loads.append(node.piece.tensor.name) if isinstance(node, Load) else None
            collect(node.body) if isinstance(node, Loop) else None

    collect(record(flash2).body)
    assert loads == ["Q", "K", "V"]


@pytest.mark.parametrize("algorithm", GENERAL, ids=lambda a: a.name)
def test_recording_twice_gives_the_same_program(algorithm):
    features = Features(padding=True, dropout=True, masked=True)
    assert record(algorithm.forward, features) is record(algorithm.forward, features)
    assert record(algorithm.forward, features) is not record(algorithm.forward)


def kinds(program):
    found = set()

    def walk(body):
        for node in body:
            found.add(node.kind) if isinstance(node, Op) else None
            walk(node.body) if isinstance(node, Loop) else None

    walk(program.body)
    return found


def test_features_change_the_text():
    plain = record(flash2)
    assert {"mask", "exp", "dot"} <= kinds(plain)
    assert "drop" not in kinds(plain)
    assert "padding" not in plain.tensors
    assert "drop" in kinds(record(flash2, Features(dropout=True)))
    assert record(flash2, Features(padding=True, masked=True)).tensors["padding"].role == "input"


def test_features_change_the_kernels_of_eager_attention():
    eager = next(a for a in ALGORITHMS if a.name == "eager").forward

    def kernels(**features):
        return [node.kernel for node in record(eager, Features(**features)).body]

    assert kernels() == ["S = QK^T", "P = softmax S", "O = PV"]
    assert kernels(masked=True) == ["S = QK^T", "mask", "P = softmax S", "O = PV"]
    assert kernels(dropout=True) == ["S = QK^T", "P = softmax S", "dropout", "O = PV"]


def test_roles_of_tensors():
    forward, backward = record(flash2), record(flash2_backward)
    assert {n: t.role for n, t in forward.tensors.items()} == {
        **dict.fromkeys("QKV", "input"),
        **dict.fromkeys("OL", "output"),
    }
    assert {n: t.role for n, t in backward.tensors.items()} == {
        **dict.fromkeys(("Q", "K", "V", "O", "dO", "L"), "input"),
        **dict.fromkeys(("dQ", "dK", "dV"), "output"),
        **dict.fromkeys(("D", "dQ_sum"), "scratch"),
    }
    assert (forward.backward, backward.backward) == (False, True)


def test_transposing_twice_is_nothing():
    def turns(p, Q, dQ):
        for b, h, g, i in grid(p):
            q = p.load(Q[h, g, i])
            assert q.T.shape == q.shape[::-1]
            p.store(dQ[h, g, i], q.T.T)

    np.testing.assert_array_equal(run(turns).tensors["dQ"], reference.random_inputs(PROBLEM)["Q"])


# Texts that the library does not use, but the language allows


def tiles_of_tiles(p, Q, K, O):
    """Keys cut into splits of 20, splits into strips of 6: nothing divides anything."""
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles):
        for s in p.loop(p.tiles(p.kv, 20)):
            for t in p.loop(p.tiles(s, 6)):
                for u in p.loop(p.tiles(t, 4)):
                    p.load(K[h, u])
                p.load(Q[h, g, i])
        p.store(O[h, g, i], p.zeros(i, p.value_dim))


@pytest.mark.parametrize("kv_len", [1, 6, 19, 20, 21, 47, 60, 1000])
def test_tiles_of_tiles_are_counted_exactly(kv_len):
    problem = AttentionProblem(q_len=7, kv_len=kv_len, head_dim=2, dtype="fp64", accum_dtype="fp64")
    spans = [min(20, kv_len - start) for start in range(0, kv_len, 20)]
    strips = sum(-(-span // 6) for span in spans)
    traffic = count(record(tiles_of_tiles), problem, TileSizes(3, 1))
    assert has_closed_form(record(tiles_of_tiles))
    assert traffic["K"].read == 8 * 2 * kv_len * 3  # 7 queries in tiles of 3
    assert traffic["Q"].read == 8 * 2 * 7 * strips


def splits(p, Q, K, V, O):
    """Split-KV attention: partial results by the number of the split, combined by a second kernel."""
    walk = p.tiles(p.kv, 5)
    o_part = p.scratch("o_part", p.one_per(walk), p.kv_heads, p.group, p.q, p.value_dim)
    L_part = p.scratch("L_part", p.one_per(walk), p.kv_heads, p.group, p.q, p.one, dtype="stat")
    for b, h, g, i, s in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles, walk):
        q = p.load(Q[h, g, i])
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.tiles(s, 2), i):
            k, v = p.load(K[h, j], V[h, j])
            x = p.mask(p.scale * (q @ k.T), i, j)
            m_new = maximum(m, rowmax(x))
            e, alpha = exp(x - m_new), exp(m - m_new)
            l[:] = alpha * l + rowsum(e)
            acc[:] = alpha * acc + e @ v
            m[:] = m_new
        p.store(o_part[s.number, h, g, i], acc / l)
        p.store(L_part[s.number, h, g, i], m + log(l))
    for b, h, g, i in p.kernel("combine", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for s in p.loop(walk):
            m[:] = maximum(m, p.load(L_part[s.number, h, g, i]))
        for s in p.loop(walk):
            w = exp(p.load(L_part[s.number, h, g, i]) - m)
            l += w
            acc += w * p.load(o_part[s.number, h, g, i])
        p.store(O[h, g, i], acc / l)


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_split_keys_compute_attention(mask):
    """Without a closed form under a mask (tiles cut from a tile): walked, and exact all the same."""
    problem = dataclasses.replace(PROBLEM, q_len=6, kv_len=13, mask=mask)
    program, inputs = record(splits, problem.features), reference.random_inputs(problem)
    done = execute(program, problem, TileSizes(4, 1), inputs)
    np.testing.assert_allclose(done.tensors["O"], reference.attention(problem, inputs)["O"], rtol=1e-12, atol=1e-12)
    assert count(program, problem, TileSizes(4, 1)) == done.traffic
