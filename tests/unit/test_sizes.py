"""Sizes: the algebra obeys integer arithmetic, equal sizes are equal however made, and they print as in papers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.sizes import ONE, Ceil, Least, Name, Size, Whole, ceil, least, name, product, size

NAMES = ("q_len", "kv_len", "head_dim", "tile_q", "tile_kv", "batch")
environments = st.fixed_dictionaries({n: st.integers(1, 50) for n in NAMES})

# An expression is a tree of tuples: what it is as a Size and what it is as an integer are computed independently.
leaves = st.one_of(st.integers(-9, 9), st.sampled_from(NAMES))
divisors = st.one_of(st.integers(1, 9), st.sampled_from(NAMES))


def grown(trees):
    arithmetic = st.tuples(st.sampled_from(["+", "-", "*", "least"]), trees, trees)
    return st.one_of(arithmetic, st.tuples(st.just("ceil"), trees, divisors))


expressions = st.recursive(leaves, grown, max_leaves=6)
polynomials = st.recursive(leaves, lambda t: st.tuples(st.sampled_from("+-*"), t, t), max_leaves=6)

AS_SIZE = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "least": least,
    "ceil": ceil,
}
AS_INTEGER = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "least": min,
    "ceil": lambda a, b: a // b + (a % b > 0),
}


def made(tree):
    """The tree as a Size."""
    if isinstance(tree, tuple):
        operation, a, b = tree
        return AS_SIZE[operation](made(a), made(b))
    return size(tree) if isinstance(tree, int) else name(tree)


def worth(tree, where):
    """The tree as an integer, by plain arithmetic."""
    if isinstance(tree, tuple):
        operation, a, b = tree
        return AS_INTEGER[operation](worth(a, where), worth(b, where))
    return tree if isinstance(tree, int) else where[tree]


def value(e, where):
    """A Size as an integer, through the Python that `count` compiles."""
    return eval(e.python(), {"min": min}, dict(where))


def same(a, b):
    return a == b and hash(a) == hash(b)


# Values


@given(expressions, environments)
def test_the_compiled_text_is_worth_the_expression(tree, where):
    assert value(made(tree), where) == worth(tree, where)


@given(polynomials, polynomials, environments)
def test_replacing_an_atom_is_evaluating_it_first(tree, inner, where):
    replaced = made(tree).map(lambda a: made(inner) if a == Name("q_len") else size(a))
    assert value(replaced, where) == worth(tree, {**where, "q_len": worth(inner, where)})


@given(expressions, st.integers(-9, 9), environments)
def test_integers_on_either_side(tree, n, where):
    e, x = made(tree), worth(tree, where)
    assert [value(s, where) for s in (e + n, n + e, e - n, e * n, n * e)] == [x + n, n + x, x - n, x * n, n * x]


# Equality: the same polynomial is the same object to a dict, however it was made


@given(polynomials, polynomials, polynomials)
def test_ring_laws(a, b, c):
    a, b, c = made(a), made(b), made(c)
    assert same(a + b, b + a)
    assert same(a * b, b * a)
    assert same((a + b) + c, a + (b + c))
    assert same((a * b) * c, a * (b * c))
    assert same(a * (b + c), a * b + a * c)
    assert same(a - b, a + b * -1)
    assert same(a + 0, a)
    assert same(a * ONE, a)
    assert same(a * 0, size(0))
    assert not a - a


@given(polynomials, polynomials, environments)
def test_equal_sizes_have_equal_values_and_unequal_ones_differ_somewhere(a, b, where):
    """Two polynomials in six names that agree far outside their coefficients' range are the same polynomial."""
    far = {n: 10 ** (9 * k) + x for k, (n, x) in enumerate(where.items(), 1)}
    assert (made(a) == made(b)) == (worth(a, far) == worth(b, far))


@pytest.mark.parametrize("other", [3, "3", None, 3.0, Name("q_len")])
def test_a_size_is_no_number(other):
    assert size(3) != other


def test_ceilings_multiply_in_any_order():
    a, b, c = (ceil(name(over), name("tile_q")) for over in ("q_len", "kv_len", "batch"))
    assert same(a * b * c, c * (b * a))


def test_equal_ceilings_multiply_alike():
    n, d, b, t = map(name, ("q_len", "head_dim", "batch", "tile_q"))
    assert ceil(n + d, t) == ceil(d + n, t)
    assert same(ceil(n + d, t) * ceil(b, t), ceil(d + n, t) * ceil(b, t))


# Simplification


def test_nothing_is_divided_or_compared_needlessly():
    n, t = name("q_len"), name("tile_q")
    assert ceil(n, 1) == n
    assert ceil(n, n) == ONE
    assert ceil(n * 2, 2 * n) == ONE
    assert least(n, n) == n
    assert ceil(n, t).atoms() == {Ceil(n, t)}
    assert least(n, t).atoms() == {Least(n, t)}


@pytest.mark.parametrize(
    ("e", "truth"), [(size(0), False), (name("q_len") - name("q_len"), False), (size(-1), True), (name("q_len"), True)]
)
def test_truth(e, truth):
    assert bool(e) is truth


def test_product_of_a_shape():
    n, d = name("q_len"), name("head_dim")
    assert product((n, d, size(3))) == 3 * n * d
    assert product(()) == ONE


def test_zero_terms_are_dropped():
    assert Size({(Name("q_len"),): 0}) == size(0)
    assert (name("q_len") - name("q_len") + 5).terms == {(): 5}


# Structure


def test_atoms_inside_atoms():
    n, t, d = name("q_len"), name("tile_q"), name("head_dim")
    e = d * ceil(n, least(t, n))
    assert e.atoms() == {Name("head_dim"), Ceil(n, least(t, n))}
    assert set(e.all_atoms()) == {Name("head_dim"), Ceil(n, least(t, n)), Least(t, n), Name("q_len"), Name("tile_q")}


def test_a_whole_is_worth_what_is_inside():
    n, t = name("q_len"), name("tile_q")
    whole = size(Whole(n + t))
    assert whole.atoms() == {Whole(n + t)}
    assert value(3 * whole * n, {"q_len": 5, "tile_q": 2}) == 3 * (5 + 2) * 5
    assert str(whole * 2) == "2·(B_r + N_q)"
    assert {Name("q_len"), Name("tile_q")} <= set(whole.all_atoms())


# Printing


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (size(0), "0"),
        (ONE, "1"),
        (size(-3), "-3"),
        (name("q_len"), "N_q"),
        (name("bytes_io"), "bytes_io"),
        (2 * name("q_len") * name("head_dim"), "2·N_q·d"),
        (name("q_len") * name("q_len"), "N_q·N_q"),
        (name("q_len") - 1, "N_q - 1"),
        (name("q_len") - name("head_dim"), "N_q - d"),
        (name("head_dim") * ceil(name("q_len"), name("tile_q")), "d·⌈N_q/B_r⌉"),
        (least(name("tile_kv"), name("kv_len")), "min(B_c, N_k)"),
    ],
)
def test_printing(e, text):
    assert str(e) == text


def test_a_ceiling_of_a_sum_is_printed_unambiguously():
    n, d, t = map(name, ("q_len", "head_dim", "tile_q"))
    assert str(ceil(n + d, t)) == "⌈(N_q + d)/B_r⌉"
    assert str(ceil(n, 2 * t)) == "⌈N_q/(2·B_r)⌉"


@given(expressions, environments)
def test_the_python_text_is_closed_under_composition(tree, where):
    """What `python()` returns is a sum: it may be put into parentheses anywhere."""
    text = made(tree).python()
    assert eval(f"3 * ({text}) - 1", {"min": min}, dict(where)) == 3 * worth(tree, where) - 1


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_ceilings_are_exact_at_any_size(over, by):
    got = value(ceil(name("q_len"), name("tile_q")), {"q_len": over, "tile_q": by})
    assert (got - 1) * by < over <= got * by
    assert math.ceil(got) == got
