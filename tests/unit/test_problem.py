"""Problems: defaults follow the shapes, everything illegal is refused with value, rule and nearest legal value."""

import dataclasses
import itertools

import pytest

from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Band
from ioaware.problem import ROLES, AttentionProblem, Bias, Features


def refusal(**arguments):
    with pytest.raises(InputError) as error:
        AttentionProblem(**{"q_len": 8, **arguments})
    return str(error.value)


def nearest(message):
    return int(message.partition("the nearest legal value is ")[2].replace(",", ""))


# Defaults


def test_defaults_follow_what_is_given():
    problem = AttentionProblem(q_len=100, heads=6, head_dim=80)
    assert (problem.kv_len, problem.kv_heads, problem.value_dim, problem.batch) == (100, 6, 80, 1)
    assert (problem.dtype, problem.score_dtype, problem.accum_dtype) == ("fp16", "fp16", "fp32")
    assert (problem.band, problem.padding, problem.dropout, problem.passes) == (FULL, False, 0.0, ("fwd",))
    assert AttentionProblem(q_len=8, dtype="bf16").score_dtype == "bf16"


def test_problems_are_values():
    a, b = AttentionProblem(q_len=8), AttentionProblem(q_len=8, kv_len=8, dtype="half", mask=FULL)
    assert a == b
    assert hash(a) == hash(b)
    assert a != AttentionProblem(q_len=9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.q_len = 9


def test_a_problem_can_be_varied():
    longer = dataclasses.replace(AttentionProblem(q_len=8, mask="padding"), q_len=9, mask="causal")
    assert (longer.q_len, longer.kv_len, longer.band, longer.padding) == (9, 8, CAUSAL, True)


@pytest.mark.parametrize(("direction", "passes"), [("fwd", ("fwd",)), ("bwd", ("bwd",)), ("fwd+bwd", ("fwd", "bwd"))])
def test_directions(direction, passes):
    assert AttentionProblem(q_len=8, direction=direction).passes == passes


# Refusals


@pytest.mark.parametrize("name", ["q_len", "kv_len", "batch", "heads", "kv_heads", "head_dim", "value_dim"])
@pytest.mark.parametrize(
    ("value", "shown", "near"),
    [(0, "0", 1), (-3, "-3", 1), (10**15 + 1, "1,000,000,000,000,001", 10**15), (True, "True", 1), (2.6, "2.6", 3)],
)
def test_a_wrong_count_is_refused(name, value, shown, near):
    message = refusal(**{name: value})
    assert message.startswith(f"{name}={shown}: ")
    assert nearest(message) == near


@pytest.mark.parametrize("name", ["q_len", "kv_len", "batch", "heads", "kv_heads", "head_dim", "value_dim"])
@pytest.mark.parametrize("value", ["8", None, {4}, 1j])
def test_a_count_is_an_integer(name, value):
    if value is None and name in ("kv_len", "kv_heads", "value_dim"):
        assert getattr(AttentionProblem(**{"q_len": 8, name: value}), name) is not None  # the default
    else:
        assert refusal(**{name: value}).startswith(f"{name}={value}: must be a positive integer")


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 3), (8, 16), (12, 5), (7, 2), (6, 4), (2**40, 3), (97, 50)])
def test_key_heads_divide_query_heads(heads, kv_heads):
    """The value that is named divides, and none divides that is nearer."""
    message = refusal(heads=heads, kv_heads=kv_heads)
    assert message.startswith(f"kv_heads={kv_heads}: must divide heads={heads:,}; ")
    distance = abs(nearest(message) - kv_heads)
    assert heads % nearest(message) == 0
    assert all(heads % k for k in range(max(1, kv_heads - distance + 1), kv_heads + distance))


@pytest.mark.parametrize(("dropout", "nearest"), [(1, 0.999), (1.5, 0.999), (-0.1, 0.0), (float("nan"), 0.0)])
def test_dropout_is_a_probability(dropout, nearest):
    message = refusal(dropout=dropout)
    assert message.startswith(f"dropout={dropout}: ")
    assert message.endswith(f"nearest legal value is {nearest}")


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("mask", "casual", "causal"),
        ("mask", "ful", "full"),
        ("direction", "forward", "fwd"),
        ("direction", "fwd-bwd", "fwd+bwd"),
        ("dtype", "fp166", "fp16"),
        ("score_dtype", "bf15", "bf16"),
        ("accum_dtype", "fpp32", "fp32"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name, value, nearest):
    message = refusal(**{name: value})
    assert message.startswith(f"{name} '{value}' is unknown")
    assert f"the nearest is '{nearest}'" in message


def test_lengths_come_one_per_sequence():
    assert refusal(q_len=(1, 2), kv_len=(1, 2, 3)) == "q_len has 2 lengths and kv_len has 3: one of each per sequence"
    assert refusal(q_len=(1, 2, 3), batch=2).startswith("batch=2: 3 lengths are given, one per sequence; the nearest")
    assert refusal(q_len=()) == "q_len is empty; give one length per sequence"
    assert refusal(kv_len=[]) == "kv_len is empty; give one length per sequence"
    assert refusal(q_len=(4, 0)).startswith("q_len=0: ")


# Variable lengths


def test_one_length_serves_all_sequences():
    problem = AttentionProblem(q_len=1, kv_len=[5, 7, 5])
    assert problem.sequences == [(1, 5), (1, 7), (1, 5)]
    assert (problem.q_len, problem.kv_len, problem.batch) == ((1, 1, 1), (5, 7, 5), 3)
    assert AttentionProblem(q_len=(5, 7), kv_len=9).sequences == [(5, 9), (7, 9)]
    assert AttentionProblem(q_len=(5, 7)).sequences == [(5, 5), (7, 7)]


def test_equal_lengths_are_counted_together():
    problem = AttentionProblem(q_len=(4, 2, 4, 4), kv_len=(8, 2, 8, 9))
    assert dict(problem.lengths()) == {(4, 8): 2, (2, 2): 1, (4, 9): 1}
    assert AttentionProblem(q_len=3, kv_len=5, batch=7).lengths() == [((3, 5), 7)]
    assert AttentionProblem(q_len=3, kv_len=5, batch=2).sequences == [(3, 5), (3, 5)]


def test_the_longest_query_and_key_may_be_of_different_sequences():
    assert AttentionProblem(q_len=(4, 9, 1), kv_len=(8, 2, 3)).longest() == (9, 8)
    assert AttentionProblem(q_len=4, kv_len=7, batch=3).longest() == (4, 7)


def test_a_single_length_and_a_sequence_of_it_are_the_same_work():
    one, many = AttentionProblem(q_len=6, kv_len=9, batch=2), AttentionProblem(q_len=(6, 6), kv_len=(9, 9))
    assert one.lengths() == many.lengths()
    assert one.pairs() == many.pairs()


# Pairs


@pytest.mark.parametrize("mask", ["full", "causal", Band(2, 1)], ids=str)
def test_pairs_by_enumeration(mask):
    problem = AttentionProblem(q_len=(5, 8), kv_len=(9, 3), heads=6, kv_heads=2, mask=mask)
    edges = {"full": (99, 99), "causal": (99, 0)}.get(mask, (2, 1))
    seen = 0
    for _, (q_len, kv_len) in itertools.product(range(6), ((5, 9), (8, 3))):
        for q, k in itertools.product(range(q_len), range(kv_len)):
            seen += -edges[0] <= k - (q + kv_len - q_len) <= edges[1]
    assert problem.pairs() == seen


def test_pairs_do_not_overflow():
    n, heads, batch = 10**9, 1000, 1000
    problem = AttentionProblem(q_len=n, heads=heads, batch=batch, mask="causal")
    assert problem.pairs() == heads * batch * n * (n + 1) // 2


# Grouped heads and features


@pytest.mark.parametrize(("heads", "kv_heads", "group"), [(8, 8, 1), (8, 2, 4), (8, 1, 8), (8, None, 1)])
def test_groups(heads, kv_heads, group):
    problem = AttentionProblem(q_len=8, heads=heads, kv_heads=kv_heads)
    assert problem.group == group
    assert problem.group * problem.kv_heads == heads


@pytest.mark.parametrize(
    ("arguments", "features"),
    [
        ({}, Features()),
        ({"mask": "causal"}, Features(masked=True)),
        ({"mask": Band(4, 0)}, Features(masked=True)),
        ({"mask": "padding"}, Features(padding=True, masked=True)),
        ({"padding": True}, Features(padding=True, masked=True)),
        ({"dropout": 0.1}, Features(dropout=True)),
        ({"dropout": 0.1, "mask": "causal", "padding": True}, Features(True, True, True)),
        ({"softcap": 50.0, "alibi": True}, Features(softcap=True, alibi=True)),
        ({"bias": Bias(heads=False), "sink": True}, Features(bias=Bias(False, True), sink=True)),
        ({"page_size": 16, "kv_dtype": "int8"}, Features(paged=True, kv_scales="head")),
        ({"kv_dtype": "fp8", "kv_scales": "token"}, Features(kv_scales="token")),
        ({"kv_scales": "token", "shared_kv": True, "softmax_scale": 2.0}, Features()),
    ],
    ids=str,
)
def test_features(arguments, features):
    assert AttentionProblem(q_len=8, **arguments).features == features


def test_masks_by_name():
    assert AttentionProblem(q_len=8, mask="causal").band == CAUSAL
    assert AttentionProblem(q_len=8, mask="padding").band == FULL
    assert AttentionProblem(q_len=8, mask=Band(3, 0), padding=True).band == Band(3, 0)


# Number formats of roles


@pytest.mark.parametrize(
    ("formats", "bytes_"),  # in the order of ROLES: io, score, accum, stat, byte, index
    [
        ({}, (2, 2, 4, 4, 1, 4)),
        ({"dtype": "fp8"}, (1, 1, 4, 4, 1, 4)),
        ({"dtype": "fp8", "score_dtype": "bf16"}, (1, 2, 4, 4, 1, 4)),
        ({"dtype": "fp32"}, (4, 4, 4, 4, 1, 4)),
        ({"dtype": "fp16", "score_dtype": "fp32"}, (2, 4, 4, 4, 1, 4)),
        ({"dtype": "fp64", "accum_dtype": "fp64"}, (8, 8, 8, 8, 1, 4)),
        ({"dtype": "bf16", "accum_dtype": "bf16"}, (2, 2, 2, 4, 1, 4)),  # statistics stay fp32
    ],
    ids=str,
)
def test_itemsizes(formats, bytes_):
    problem = AttentionProblem(q_len=8, **formats)
    assert problem.itemsizes == bytes_
    assert tuple(problem.itemsize(role) for role in ROLES) == bytes_


def test_statistics_are_as_wide_as_flash_attention_stores_them():
    assert AttentionProblem(q_len=8).number_format("stat") == "fp32"
    assert AttentionProblem(q_len=8, accum_dtype="fp64").number_format("stat") == "fp64"


@pytest.mark.parametrize("dropout", ["x", None, [0.1], float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
    with pytest.raises(InputError, match=r"a probability in \[0, 1\)"):
        AttentionProblem(q_len=8, dropout=dropout)
