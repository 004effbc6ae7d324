"""coq: a recorded program as the Coq object that the theorems are about, and its closed forms as its theorem.

The two are independent: the definition is printed from the recorded loop nest, the theorem from the closed forms that
`count` evaluates. Coq accepts the theorem only if summing the loop nest gives the closed forms, for every size, tile
and mask. The language is in proofs/theories/IOCounts.v, the tactic in ClosedForms.v.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from math import gcd
from operator import and_
from textwrap import fill

from ..errors import NoClosedForm
from ..program.loops import Axis, Extent, Index, Seen, Tiles, rows
from ..program.nodes import Load, Loop, Node, Store
from ..program.recorder import Program
from ..sizes import ONE, Atom, Ceil, Least, Monomial, Name, Size, Whole, size
from .algebra import Statistic, exponentials, flops, nodes
from .count import closed_forms, tensor_quantities, work_quantities

PARAMETERS = ("batch", "kv_heads", "group", "q_len", "kv_len", "head_dim", "value_dim", "tile_q", "tile_kv")
ARGUMENTS = " ".join(PARAMETERS)
STATISTICS = ("tiles", "rows", "cols", "cells")
TURNS = ("first", "last", "back")  # a walk's first and last tile, and at how many turns the last one is kept
TAKEN = (
    " What closed forms subtract stands on the left: first and last are the rows of a walk's end tiles, back is the "
    "number of turns at the last one."
)
QUANTITIES = {"read": "Read", "write": "Write", "add": "Add", "flops": "Flop", "exps": "Exp"}
WIDTH = 120  # columns


def definition(program: Program, called: str) -> str:
    """The loop nest as a Coq definition: what each iteration loads, stores and computes."""
    body = _sequence(
        [f"(* kernel {_quoted(n.kernel or '')} *)\n{_loop(n)}" for n in program.body if isinstance(n, Loop)]
    )
    arguments = f"({ARGUMENTS} : nat) (sees : nat -> nat -> bool)"
    return f"Definition {called}\n    {arguments} : prog :=\n{_indented(body)}.\n"


def theorem(program: Program, called: str, subject: str) -> str:
    """The closed forms that `count` evaluates, as one Coq theorem about `definition(program, called)`.

    `subject` says in words what the program is. What a closed form subtracts stands on the left of the equation, as Coq
    counts in natural numbers. Raises NoClosedForm where the traffic has none.
    """
    forms = dict(_closed_forms(program))
    added, taken = (_weighed({q: _signed(form, sign) for q, form in forms.items()}) for sign in (1, -1))
    counted = fill(f"count w ({called} {ARGUMENTS} sees)", WIDTH - 4, subsequent_indent="    ")
    scope = "all lengths from 1 on, no mask" if taken else "every mask, every size"
    comment = (
        f"{subject}: all that it moves and computes, whatever a word of each tensor and an operation weigh (w), "
        f"for {scope} and every tile, ragged ones included."
        f"{TAKEN if taken else ''}"
    )
    statement = "\n  ".join([
        f"Theorem {called}_counts :",
        f"forall w {ARGUMENTS} sees,",
        f"0 < tile_q -> 0 < tile_kv ->{' 0 < q_len -> 0 < kv_len ->' if taken else ''}",
        *(f"let {let} := {value} in" for let, value in _lets(forms).items()),
        "\n  + ".join([counted, *taken]) + " =",
        "  " + "\n  + ".join(added),
    ])  # fmt: skip
    return f"""\
{fill(f"(** {comment}", WIDTH, subsequent_indent="    ")}
    Used by: simulator/ioaware/readers/count.py (count). *)
{statement}.
Proof. unfold {called}. closed_form. Qed.
"""


# ------------------------------------------------------------------------------------------------ the loop nest
def _loop(loop: Loop) -> str:
    """A loop; it shares its line with a loop that is all of its body."""
    head, body = f"{_trips(loop.index)} (fun {_step(loop.index)} =>", _sequence(list(_parts(loop.body)))
    for bound, value in reversed(_names(loop).items()):
        if re.search(rf"\b{bound}(?![\w'])", body):
            body = f"let {bound} := {value} in\n{body}"
    nested = body.startswith("For") and len(head) + body.find("\n") < WIDTH - 20
    return f"{head} {body})" if nested else f"{head}\n{_indented(body)})"


def _parts(body: list[Node]) -> Iterator[str]:
    for node in body:
        match node:
            case Loop():
                yield _loop(node)
            case Load():
                load = f"Load {_quoted(node.piece.tensor.name)} {_argument(node.out.words)}"
                yield load if node.kept_by is None else f"Unless kept_{node.kept_by} ({load})"
            case Store():
                verb = "AtomicAdd" if node.adds else "Store"
                yield f"{verb} {_quoted(node.piece.tensor.name)} {_argument(node.value.words)}"
            case _:
                work = {"Flops": flops(node), "Exps": exponentials(node)}
                yield from (f"{verb} {_argument(amount)}" for verb, amount in work.items() if amount)


def _sequence(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else "Seq [\n" + ";\n".join(map(_indented, parts)) + "\n]"


def _trips(index: Index) -> str:
    """What a loop walks: positions, all tiles, or the tiles that the mask lets through."""
    over = index.over
    if isinstance(over, Axis):
        return f"For {_argument(over.length)}"
    return f"For {_tiles(over)}" if over.seen_by is None else f"ForSeen {_visible(over, index.name, over.seen_by)}"


def _step(index: Index) -> str:
    """What an iteration is called: its tile, or the step of a walk back and forth."""
    return "t" if isinstance(index.over, Tiles) and index.over.turns_with is not None else index.name


def _tiles(over: Tiles) -> str:
    return f"(cdiv {_cut(over)})"


def _cut(over: Tiles) -> str:
    """What is cut into tiles, and the rows of a tile."""
    return f"{_argument(rows(over.span))} {_argument(over.step)}"


def _visible(over: Tiles, tile: str, other: Index) -> str:
    """The tiles visible to `other`'s tile; `sees` takes the query tile first."""
    step, tile = ("t", f"({_turned(over, other)})") if over.turns_with is other else (tile, tile)
    pair = f"{tile} {other.name}" if over.axis.name == "q_len" else f"{other.name} {tile}"
    return f"{_tiles(over)} (fun {step} => sees {pair})"


def _turned(over: Tiles, turn: Index) -> str:
    """The tile that a walk back and forth visits at its step t."""
    return f"back_and_forth {_tiles(over)} {turn} t"


def _names(loop: Loop) -> dict[str, str]:
    """What the body may call by name: the loop's tile, its extent, and the extent of all tiles that this tile sees."""
    index, over = loop.index, loop.index.over
    if isinstance(over, Axis):
        return {}
    names = {}
    if over.turns_with is not None:
        names[index.name] = _turned(over, over.turns_with)
        names[f"kept_{index.name}"] = f"kept {_sees(index, over)} {_tiles(over)} {over.turns_with} t"
    names[_extent(index)] = f"tile {_cut(over)} {index.name}"
    for seen in dict.fromkeys(a for a in _atoms(loop) if isinstance(a, Seen) and a.other == index):
        tiles = seen.index.over
        assert isinstance(tiles, Tiles)
        names[_atom(seen)] = f"sum_seen {_visible(tiles, tiles.axis.letter, index)} (tile {_cut(tiles)})"
    return names


def _sees(index: Index, over: Tiles) -> str:
    """What a walk back and forth sees: a relation of the tile that turns it and its own."""
    if over.seen_by is None:
        return "full"
    return f"(fun {over.seen_by} {index} => sees {index} {over.seen_by})" if over.axis.name == "q_len" else "sees"


def _atoms(loop: Loop) -> Iterator[Atom]:
    """What the sizes of the values in a loop's body depend on."""
    for node, _ in nodes(loop.body):
        yield from (node.value if isinstance(node, Store) else node.out).words.atoms()


def _extent(index: Index) -> str:
    return f"{'rows' if index.axis.name == 'q_len' else 'cols'}_{index.name}"


# ------------------------------------------------------------------------------------------------ the closed forms
def _closed_forms(program: Program) -> Iterator[tuple[str, Size]]:
    """(quantity, total) as `count` evaluates it, in words instead of bytes."""
    for (tensor, kind), form in closed_forms(program, tensor_quantities).items():
        if form:
            yield f"({QUANTITIES[kind]} {_quoted(tensor)})", form.map(_in_words)
    work = closed_forms(program, work_quantities)
    for kind in ("flops", "exps"):
        total = sum((form for key, form in work.items() if key[1:] == (kind,)), size(0))
        if total:
            yield QUANTITIES[kind], total


def _weighed(forms: dict[str, Size]) -> list[str]:
    """The terms of an equation: each quantity's amount times its weight."""
    return [f"w {quantity} * ({_coq(form)})" for quantity, form in forms.items() if form]


def _signed(form: Size, sign: int) -> Size:
    """What is added in a form (sign 1), or what is subtracted (sign -1)."""
    return Size({m: sign * c for m, c in form.terms.items() if sign * c > 0})


def _in_words(a: Atom) -> Size:
    return ONE if isinstance(a, Name) and a.name.startswith("bytes_") else size(a)


def _lets(forms: dict[str, Size]) -> dict[str, str]:
    """The names that closed forms use: of mask statistics, and of what is kept where a walk turns."""
    lets: dict[str, str] = {}
    for atom in {a: None for form in forms.values() for a in sorted(form.atoms(), key=_order)}:
        value = _value(atom)
        if value and lets.setdefault(_atom(atom), value) != value:
            raise NoClosedForm(f"{atom} and another size would both be called {_atom(atom)}")
    return dict(sorted(lets.items(), key=lambda let: (*STATISTICS, *TURNS).index(let[0])))


def _value(a: Atom) -> str:
    """What a name of `_lets` stands for; nothing if the atom is written out."""
    match a:
        case Statistic(what, tile_q, tile_kv):
            return f"seen_{what} sees q_len kv_len {_argument(tile_q)} {_argument(tile_kv)}"
        case Least(one, other):
            return f"Nat.min {_argument(one)} {_argument(other)}"
        case Whole(inner):
            return _coq(inner)
        case Ceil(over, by) if _atom(a) == "back":
            return f"cdiv {_argument(over)} {_argument(by)}"
    return ""


# ------------------------------------------------------------------------------------------------ sizes
def _coq(e: Size) -> str:
    """A size as a Coq expression in natural numbers, common factors first."""
    taken = _signed(e, -1)
    if taken:
        return f"{_coq(_signed(e, 1))} - {_coq(taken) if len(taken.terms) == 1 else _argument(taken)}"
    if len(e.terms) < 2:
        return " * ".join(_factors(m, c) for m, c in e.terms.items()) or "0"
    common, most = reduce(and_, map(Counter, e.terms)), gcd(*e.terms.values())
    rest = {tuple((Counter(m) - common).elements()): c // most for m, c in e.terms.items()}
    total = " + ".join(_factors(m, c) for m, c in sorted(rest.items(), key=lambda term: sorted(map(_order, term[0]))))
    return f"{_factors(tuple(common.elements()), most)} * ({total})" if common or most > 1 else total


def _factors(monomial: Monomial, coefficient: int) -> str:
    numbers = [str(coefficient)] if coefficient != 1 or not monomial else []
    return " * ".join(numbers + [_atom(a) for a in sorted(monomial, key=_order)])


def _order(a: Atom) -> tuple[int, str]:
    """Extents first, then parameters in the order of every definition, then tile counts and statistics."""
    match a:
        case Name(parameter):
            if parameter not in PARAMETERS:
                raise NoClosedForm(f"{parameter} is no parameter of the programs printed for Coq")
            return PARAMETERS.index(parameter), parameter
        case Extent(index) | Seen(index):
            return (-2 if index.axis.name == "q_len" else -1), _atom(a)
    return len(PARAMETERS), _atom(a)


def _atom(a: Atom) -> str:
    match a:
        case Name(parameter):
            return parameter
        case Extent(index):
            return _extent(index)
        case Seen(index, other, rows=True):
            return f"{_extent(index).split('_')[0]}_{other.name}_sees"
        case Least():
            return "first"
        case Whole():
            return "last"
        case Ceil(over, by) if not _signed(over, -1):
            return f"cdiv {_argument(over)} {_argument(by)}"
        case Ceil(by=by) if by == size(2):
            return "back"
        case Statistic(what) if what in STATISTICS:
            return what
    raise NoClosedForm(f"{a} has no expression in Coq")


def _argument(e: Size) -> str:
    text = _coq(e)
    return f"({text})" if " " in text else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.split("\n"))
