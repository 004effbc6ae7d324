"""Traffic: an exact record that adds, subtracts and scales; an atomic add is one read and one write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.traffic import NOTHING, Moved, Traffic

moved = st.builds(Moved, *[st.integers(-(10**20), 10**20)] * 3)
traffics = st.builds(Traffic, st.dictionaries(st.sampled_from("QKVO"), moved))


def columns(traffic):
    """The same record, as a plain dictionary of the three columns of every tensor."""
    return {(tensor, column): traffic[tensor][column] for tensor in "QKVO" for column in range(3)}


@given(traffics, traffics)
def test_sums_and_differences_are_by_tensor_and_column(a, b):
    x, y = columns(a), columns(b)
    assert columns(a + b) == {key: x[key] + y[key] for key in x}
    assert columns(a - b) == {key: x[key] - y[key] for key in x}


@given(traffics, st.integers(-5, 10**6))
def test_scaling(a, times):
    x = columns(a)
    assert columns(a * times) == columns(times * a) == {key: times * x[key] for key in x}


@given(traffics, traffics)
def test_records_are_values(a, b):
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)
    assert (a + b) - b == a
    assert not a - a
    assert (a == b) == (columns(a) == columns(b))


@given(traffics, traffics)
def test_totals_are_additive(a, b):
    for total in ("read_bytes", "write_bytes", "total_bytes"):
        assert getattr(a + b, total) == getattr(a, total) + getattr(b, total)


def test_an_atomic_add_reads_and_writes():
    traffic = Traffic({"Q": Moved(read=10), "dQ": Moved(add=7), "O": Moved(1, 20, 300)})
    assert (traffic["O"].read_bytes, traffic["O"].write_bytes) == (301, 320)
    assert traffic.read_bytes == 10 + 7 + 1 + 300
    assert traffic.write_bytes == 7 + 20 + 300
    assert traffic.total_bytes == 10 + 2 * 7 + 21 + 2 * 300


def test_what_does_not_move_is_left_out():
    traffic = Traffic({"Q": Moved(read=1), "K": Moved(), "V": Moved(0, 0, 0)})
    assert set(traffic.tensors) == {"Q"}
    assert traffic["K"] == traffic["never heard of"] == NOTHING
    assert set((traffic - Traffic({"Q": Moved(read=1)})).tensors) == set()
    assert not Traffic()
    assert traffic


def test_opposite_columns_of_a_difference_do_not_cancel():
    """Equal totals are not equal records: a read too many and a write too few is a difference."""
    difference = Traffic({"Q": Moved(1, 2)}) - Traffic({"Q": Moved(2, 1)})
    assert difference.total_bytes == 0
    assert difference
    assert difference["Q"] == Moved(-1, 1)


def test_as_dict():
    traffic = Traffic({"Q": Moved(read=10), "dQ": Moved(write=4, add=7)})
    assert traffic.as_dict() == {
        "read_bytes": 17,
        "write_bytes": 11,
        "tensors": {
            "Q": {"read_bytes": 10, "write_bytes": 0},
            "dQ": {"read_bytes": 7, "write_bytes": 11, "atomic_bytes": 7},
        },
    }
    assert Traffic().as_dict() == {"read_bytes": 0, "write_bytes": 0, "tensors": {}}


@given(traffics)
def test_the_json_form_agrees_with_the_record(a):
    table = a.as_dict()
    for total in ("read_bytes", "write_bytes"):
        assert table[total] == getattr(a, total) == sum(row[total] for row in table["tensors"].values())


@pytest.mark.parametrize("other", [None, 0, {}, {"Q": Moved(1)}])
def test_a_record_equals_records_only(other):
    assert Traffic({"Q": Moved(1)}) != other
