"""The tile-program language. An algorithm is a Python function `f(p, Q, K, V, O)`; see docs/programs.md.

from ioaware.program import exp, log, maximum, rowmax, rowsum
"""

from __future__ import annotations

from ..problem import Features
from .nodes import Load, Loop, Node, Op, Operand, Store, Tensor, Value
from .recorder import Program, Recorder, record

__all__ = [
    "Features", "Load", "Loop", "Node", "Op", "Program", "Recorder", "Store", "Tensor", "Value",
    "elu_plus_1", "exp", "lazy_maximum", "log", "maximum", "record", "rowmax", "rowsum",
]  # fmt: skip


def exp(x: Value) -> Value:
    """e^x, elementwise; exp(-inf) = 0."""
    return x.program.map("exp", x)


def log(x: Value) -> Value:
    """Natural logarithm, elementwise; log(0) = -inf."""
    return x.program.map("log", x)


def maximum(a: Value, b: Operand) -> Value:
    """The greater of two values, elementwise."""
    return a.program.map("maximum", a, b)


def lazy_maximum(m: Value, new: Operand) -> Value:
    """`m` while `new` is at most 2^8 times as large in exp, else `new`: FlashAttention-4's reference of a softmax."""
    return m.program.map("lazy_maximum", m, new)


def elu_plus_1(x: Value) -> Value:
    """x + 1 where x > 0, else e^x, elementwise: the feature map of linear attention."""
    return x.program.map("elu_plus_1", x)


def rowmax(x: Value) -> Value:
    """The greatest of each row: the last axis becomes 1."""
    return x.program.rows("rowmax", x)


def rowsum(x: Value) -> Value:
    """The sum of each row: the last axis becomes 1."""
    return x.program.rows("rowsum", x)
