"""What a recorded loop body does, step by step: equal for both recordings unless the text changes meanwhile."""

from __future__ import annotations

from typing import Any

from .loops import Number, Pages, SameRows, Visible
from .nodes import Load, Loop, Node, Store, Value


def signature(body: list[Node]) -> list[Any]:
    """Nodes by line, kind and operands; values made inside are known by order, values from outside by identity."""
    made: dict[Value, int] = {}

    def operand(a: object) -> object:
        if not isinstance(a, Value):
            return a
        return (made.get(a.base, id(a.base)), a.of is not None, a.turned)

    def step(node: Node) -> list[Any]:
        match node:
            case Loop():
                return [node.line, node.index.name, [step(inner) for inner in node.body]]
            case Load():
                made[node.out] = len(made)
                return [node.line, node.piece.tensor.name, *map(_position, node.piece.where)]
            case Store():
                return [node.line, node.piece.tensor.name, *map(_position, node.piece.where), operand(node.value)]
        operands = [operand(a) for a in node.args]
        if node.kind == "update":
            operands.append(operand(node.out))
        else:
            made[node.out] = len(made)
        return [node.line, node.kind, *operands, *map(_position, node.extra)]

    return [step(node) for node in body]


def _position(where: object) -> str:
    match where:
        case Number(index=index):
            return f"number of {index}"
        case Pages(index=index) | SameRows(index=index):
            return f"{type(where).__name__} of {index}"
        case Visible(tiles=tiles, to=to):
            return f"{tiles} visible to {to}"
    return str(where)
