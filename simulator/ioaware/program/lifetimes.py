"""Lifetimes of values on chip: one pass over the recorded nest, used by `execute` and by the on-chip ledger alike.

A value lives from the line that makes it to its last use in the body that made it; a tile kept at the turns of a
back-and-forth loop lives as long as the loop that turns it. Two things real kernels do are
modelled: `acc += a @ b` accumulates in place, and an elementwise result takes the room of an operand that dies there.
"""

from __future__ import annotations

from itertools import pairwise

from .nodes import Load, Loop, Node, Op, Store, Value

NEEDS_OWN_ROOM = ("dot", "update", "full", "rowmax", "rowsum")


def annotate(body: list[Node]) -> None:
    """Fill in `dies`, `fused` and `reuses` for a body and everything inside it."""
    for node in body:
        if isinstance(node, Loop):
            annotate(node.body)
    _mark_deaths(body)
    for before, after in pairwise(body):
        if isinstance(before, Op) and before.kind == "dot" and isinstance(after, Op):
            added = after.kind == "update" and after.extra == ("add",) and any(a is before.out for a in after.args)
            before.fused = added and before.out in after.dies
    for node in body:
        if isinstance(node, Op) and node.kind not in NEEDS_OWN_ROOM:
            node.reuses = next((v for v in node.dies if v is not node.out and _same_room(v, node.out)), None)


def _same_room(a: Value, b: Value) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _mark_deaths(body: list[Node]) -> None:
    made = {value for n in body for value in _made(n)}
    last: dict[Value, int] = {}
    for position, node in enumerate(body):
        for value in used(node) & made:
            last[value] = position
    for position, node in enumerate(body):
        node.dies = tuple(v for v, at in last.items() if at == position)


def _made(node: Node) -> tuple[Value, ...]:
    """The values that a node makes and that live in its body at most."""
    match node:
        case Loop():
            return kept(node)
        case Load(kept_by=None):
            return (node.out,)
        case Op() if node.kind != "update":
            return (node.out,)
    return ()


def kept(loop: Loop) -> tuple[Value, ...]:
    """The tiles that stay on chip from one iteration of a loop to the next, at the turns of a loop inside."""
    inner = [n for n in loop.body if isinstance(n, Loop)]
    loads = [n for turning in inner for n in turning.body if isinstance(n, Load)]
    return tuple(n.out for n in loads if n.kept_by in [turning.index for turning in inner])


def used(node: Node) -> set[Value]:
    """The on-chip values that a node and everything inside it touch."""
    match node:
        case Loop():
            return {value for inner in node.body for value in used(inner)}
        case Load():
            return {node.out}
        case Store():
            return {node.value.base}
        case Op():
            return {a.base for a in (node.out, *node.args) if isinstance(a, Value)}
