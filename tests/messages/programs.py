"""Program files as a user would write them: FlashAttention-2 in its own words, and what can go wrong with it."""

from __future__ import annotations

FLASH2 = '''\
from math import inf

from ioaware.program import exp, log, maximum, rowmax, rowsum


def mine(p, Q, K, V, O, L):
    """FlashAttention-2, written for a test."""
    for b, h, g, i in p.kernel("mine", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            s = p.mask(p.scale * (q @ k.T), i, j)
            m_new = maximum(m, rowmax(s))
            e = exp(s - m_new)
            alpha = exp(m - m_new)
            l[:] = alpha * l + rowsum(e)
            acc *= alpha
            acc += p.drop(e, h, g, i, j) @ v
            m[:] = m_new
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))
'''


def edited(*changes, text=FLASH2):
    """The program with pieces of its text replaced: (old, new), ..."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


WRONG = {  # programs that run and count, and compute something else
    "FlashAttention-2's factor as printed, its inverse": edited(("exp(m - m_new)", "exp(m_new - m)")),
    "no rescaling of the accumulator": edited(("            acc *= alpha\n", "")),
    "no scale": edited(("p.scale * (q @ k.T)", "q @ k.T")),
    "no normalisation": edited(("acc / l", "acc")),
}

SCRATCH = "    X = p.scratch('X', p.kv_heads, p.group, p.q, p.one)\n    for b"
BROKEN = {  # programs that break a rule of the language
    "an input is stored": edited(("p.store(O[h", "p.store(Q[h")),
    "shapes that do not fit": edited(("q @ k.T", "q @ k")),
    "the index of another axis": edited(("K[h, j]", "K[h, i]")),
    "too many indices": edited(("K[h, j]", "K[h, j, b, g, i]")),
    "a branch on a value": edited(("            e = ", "            if s: pass\n            e = ")),
    "break": edited(("            m[:] = m_new\n", "            m[:] = m_new\n            break\n")),
    "return in a loop": edited(("            m[:] = m_new\n", "            m[:] = m_new\n            return\n")),
    "a carried variable": edited(
        ("        q = p.load", "        last = p.full((i, 1), -inf)\n        q = p.load"),
        ("m[:] = m_new", "last = m_new"),
        ("m + log(l)", "last + log(l)"),
    ),
    "a tensor that does not exist": edited(("def mine(p, Q,", "def mine(p, X, Q,")),
    "a keyword of its own": edited(("O, L)", "O, L, size=3)")),
    "an output that is not stored": edited(("        p.store(O[h, g, i], acc / l)\n", "")),
    "scratch that is read unwritten": edited(
        ("    for b", SCRATCH),
        ("p.store(L[h, g, i], m + log(l))", "p.store(L[h, g, i], p.load(X[h, g, i]))"),
    ),
    "a race": edited(
        ("p.group, p.q_tiles)", "p.group, p.q_tiles, p.kv_tiles)"),
        ("h, g, i in p.kernel", "h, g, i, _ in p.kernel"),
    ),
}

SLIPS = {  # programs that fail as any Python may
    "a method that does not exist": edited(("p.kernel", "p.kernle")),
    "a name that does not exist": edited(("q @ k.T", "nothing")),
    "a matrix product with a number": edited(("q @ k.T", "q @ 3")),
    "a comparison of values": edited(("            e = ", "            assert s > 0\n            e = ")),
    "a NumPy function": edited(("alpha = exp(m - m_new)", "import numpy; alpha = numpy.exp(m - m_new)")),
    "a parameter that is missing": edited(("def mine(p, Q, K", "def mine(p, K")),
    "endless recursion": "def mine(p, Q, K, V, O):\n    mine(p, Q, K, V, O)\n",
    "no kernel": edited(('p.kernel("mine", ', "p.loop(")),
    "an empty program": "def mine(p):\n    pass\n",
}
