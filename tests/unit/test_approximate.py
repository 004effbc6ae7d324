"""Sparse and linear attention: which pairs are computed, what they cost, and that exact attention is a special case."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ioaware import reference
from ioaware.masks import CAUSAL, Band, Longformer, Sinks
from ioaware.precision import measure
from ioaware.precision.approximate import APPROXIMATE, Pattern, TopBlocks, TopTokens, linear
from ioaware.precision.attention import exact
from ioaware.precision.method import Method
from ioaware.precision.methods import find_method
from tests.messages.command import spawn

NAMES = [m.name for m in APPROXIMATE]
SPARSE = [m for m in APPROXIMATE if m.choose]
N = 200
masks = pytest.mark.parametrize("mask", [None, CAUSAL], ids=str)


def one_head(rows=N, seed=0):
    return (x[0] for x in measure.inputs(1, rows, 16, seed))


def chosen(choose, q, k, mask):
    """The pairs as a matrix of bool."""
    return choose(q, k, mask).sees(np.arange(len(q))[:, None], np.arange(len(k))[None], len(q), len(k))


def visible(mask, rows=N):
    every = np.arange(rows)
    return np.ones((rows, rows), bool) if mask is None else mask.sees(every[:, None], every[None], rows, rows)


# ------------------------------------------------------------------------------------------------ which pairs
@masks
@pytest.mark.parametrize("choose", [
    Pattern(Band(N - 1, N - 1)), Pattern(Longformer(N, 1)), Pattern(Longformer(1, N)), TopBlocks(64, 1),
    TopTokens(N, 1),
], ids=str)  # fmt: skip
def test_a_pattern_that_covers_everything_is_exact_attention(choose, mask):
    x = measure.inputs(2, N, 16)
    method = Method("all", "", exact, *(find_method("window_128").q,) * 3, choose=choose)
    assert (method(*x, 0.25, mask) == measure.reference(*x, 0.25, mask)).all()
    assert method.share(*x[:2], mask) == 1


@masks
@pytest.mark.parametrize("method", SPARSE, ids=lambda m: m.name)
def test_pairs_that_are_not_chosen_have_no_weight(method, mask):
    """Softmax over the chosen keys, written out row by row, is the output; and what was hidden stays so."""
    rows = 300
    q, k, v = one_head(rows)
    pairs = chosen(method.choose, q, k, mask)
    assert not (pairs & ~visible(mask, rows)).any()
    assert pairs.any(axis=1).all()
    out = method(q[None], k[None], v[None], 0.25, mask)[0]
    for row in range(0, rows, 7):
        keys = np.flatnonzero(pairs[row])
        e = np.exp(0.25 * (k[keys].astype(np.float64) @ q[row].astype(np.float64)))
        assert out[row] == pytest.approx(e @ v[keys] / e.sum(), rel=1e-9, abs=1e-12)


def is_window(choose, side, rows=N):
    """Are the pairs those of keys at most so far away?"""
    q, k, _ = one_head(rows)
    return all(seen == (abs(i - j) <= side) for (i, j), seen in np.ndenumerate(chosen(choose, q, k, None)))


def test_a_window_that_is_off_by_one_is_noticed():
    assert is_window(find_method("window_128").choose, 127)
    assert not any(is_window(Pattern(Band(*sides)), 127) for sides in ((126, 127), (127, 128), (128, 128)))


def test_sinks_are_those_of_streamingllm_if_causal():
    q, k, _ = one_head(300)
    got = chosen(find_method("sinks_128").choose, q, k, CAUSAL)
    wanted = Sinks(4, 124)
    assert (got == visible(wanted, 300)).all()
    assert got.sum() == wanted.pairs(300, 300)


@masks
def test_top_tokens_are_the_first_of_all_keys_in_order_of_their_scores(mask):
    q, k, _ = one_head()
    got, seen = chosen(TopTokens(10**6, 8), q, k, mask), visible(mask)
    for row in range(N):
        order = sorted(np.flatnonzero(seen[row]), key=lambda j: -float(q[row] @ k[j]))
        assert set(np.flatnonzero(got[row])) == set(order[: N // 8])
    assert chosen(TopTokens(3, 8), q, k, None).sum() == 3 * N


@masks
def test_top_blocks_are_the_first_of_all_blocks_in_order_of_their_pooled_scores(mask):
    q, k, _ = one_head()
    got, seen, size = chosen(TopBlocks(16, 4), q, k, mask), visible(mask), 16
    blocks = [slice(start, start + size) for start in range(0, N, size)]  # 13, the last of 8
    for of_q in blocks:
        able = [b for b in blocks if seen[of_q, b].any()]
        able.sort(key=lambda b: -float(q[of_q].astype(float).mean(axis=0) @ k[b].astype(float).mean(axis=0)))
        wanted = np.zeros_like(seen[of_q])
        for b in able[:4]:
            wanted[:, b] = True
        assert (got[of_q] == wanted & seen[of_q]).all()


@masks
def test_shares_are_of_the_visible_pairs(mask):
    x = measure.inputs(2, 300, 16)
    side = 127
    every, inside = 300 * 301 // 2, 300 * (side + 1) - side * (side + 1) // 2  # of one triangle
    wanted = inside / every if mask else (2 * inside - 300) / 300**2
    assert find_method("window_128").share(*x[:2], mask) == pytest.approx(wanted, rel=1e-12)
    assert find_method("flash2").share(*x[:2], mask) == 1
    assert find_method("linear").share(*x[:2], mask) is None


# ------------------------------------------------------------------------------------------------ linear attention
@masks
def test_linear_attention_is_its_formula_and_no_softmax(mask):
    q, k, v = one_head()
    found = linear(q, k, v, 0.25, mask)
    if mask:
        wanted = reference.linear_attention({"Q": q[None, None], "K": k[None], "V": v[None]})["O"][0, 0]
    else:  # as its kernels compute it: sums over the keys, then a row of the query
        phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(x)) for x in (q.astype(float), k.astype(float)))
        wanted = phi_q @ (phi_k.T @ v) / (phi_q @ phi_k.sum(axis=0))[:, None]
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert measure.errors(found, exact(q, k, v, 0.25, mask)).frobenius > 0.1


def test_a_row_of_linear_attention_that_sees_no_key_is_zero():
    (q, k, v), behind = one_head(20), Band(0, 0)
    assert (linear(q, k[:9], v[:9], 0.25, behind)[:11] == 0).all()


# ------------------------------------------------------------------------------------------------ inputs and errors
def test_peaked_inputs_are_ordinary_numbers_and_forget_as_they_say():
    q, k, v = measure.inputs(1, 4096, 256, peaked=True)
    assert (q == k).all()
    assert not np.shares_memory(q, k)
    assert (k.std(), v.std()) == pytest.approx((1, 1), rel=0.02)
    for apart in (1, 64, 128):
        together = (k[0, apart:] * k[0, :-apart]).mean()
        assert together == pytest.approx(np.exp(-apart / 64), abs=0.03)  # 256 columns x 4096 / 128 rows: 1 / 90
    assert abs((v[0, 1:] * v[0, :-1]).mean()) < 0.01


DOCUMENT = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("option", "column"), [((), 1), (("--peaked",), 2)], ids=["normal", "peaked"])
def test_the_table_of_the_documentation_is_what_the_command_prints(tmp_path, option, column):
    """Shares of the first, relative errors of both."""
    rows = re.findall(r"^\| `(\w+)` .*\| (\S+) %? ?\| (\S+) \| (\S+) \|$", DOCUMENT, re.MULTILINE)
    told = {name: numbers for name, *numbers in rows if name in NAMES}
    assert list(told) == NAMES
    asked = (word for name in NAMES for word in ("--method", name))
    result = spawn(tmp_path, "accuracy", "--N", "2K", "--causal", *option, "--json", *asked)
    for found in json.loads(result.out)["methods"]:
        assert told[found["name"]][column] == f"{found['frobenius']:.2g}"
        share = "-" if found["pairs"] is None else f"{100 * found['pairs']:.0f}"
        assert column == 2 or told[found["name"]][0] == share
