"""Coq's own semantics of the printed programs counts what the simulator counts by walking every iteration.

The theorems of Programs.v say that a printed nest costs the closed forms; here the nest itself is run, with numbers.
"""

import random
import re

import numpy as np

from ioaware.masks import CAUSAL, FULL, Band
from ioaware.problem import AttentionProblem
from ioaware.program.loops import Tiles
from ioaware.program.nodes import Op
from ioaware.readers.algebra import accesses, exponentials, flops, nodes
from ioaware.readers.coq import QUANTITIES, definition
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.walk import Walk, walked
from ioaware_proofs import bridge
from ioaware_proofs.coq import COQC, run
from tests.coq import needs_coq

EACH = 2  # random problems per program
LANGUAGE = (bridge.PROGRAMS.parent / "IOCounts.v").read_text(encoding="utf-8").partition("(** ** Sums *)")[0]
PROGRAMS = list(bridge.programs())


def instance(program, rng):
    """A small random problem with the program's features, ragged and masked, and a schedule."""
    kv_heads, group = rng.randint(1, 2), rng.randint(1, 2)
    problem = AttentionProblem(
        q_len=rng.randint(1, 9), kv_len=rng.randint(1, 9), batch=rng.randint(1, 2), heads=kv_heads * group,
        kv_heads=kv_heads, head_dim=rng.randint(1, 3), value_dim=rng.randint(1, 3),
        mask=rng.choice([FULL, CAUSAL, Band(rng.randint(0, 5), rng.choice([0, 2, None]))]),
    )  # fmt: skip
    return problem, TileSizes(rng.randint(1, 4), rng.randint(1, 4))


def walk_counts(program, problem, tiles):
    """{quantity as Coq writes it: words or operations}, by visiting every iteration."""
    quantities = [((f'{QUANTITIES[a.kind]} "{a.tensor.name}"',), a.words, a.loops) for a in accesses(program)]
    for op, loops in nodes(program.body):
        if isinstance(op, Op):
            quantities += [(("Flop",), flops(op), loops), (("Exp",), exponentials(op), loops)]
    return {quantity: n for (quantity,), n in walked(program, quantities, problem, tiles).items()}


def seen_tiles(program, problem, tiles):
    """Which key tiles each query tile sees, by the element mask, as a Coq function."""
    walk = Walk(program, problem, tiles)
    elements = walk.sees(np.arange(problem.q_len), np.arange(problem.kv_len))
    step_q, step_kv = (steps(program, walk, tiles)[axis] for axis in ("q_len", "kv_len"))
    rows = []
    for q in range(0, problem.q_len, step_q):
        seen = [elements[q : q + step_q, kv : kv + step_kv].any() for kv in range(0, problem.kv_len, step_kv)]
        rows.append(f"[{'; '.join('true' if tile else 'false' for tile in seen)}]")
    return f"(fun i j => nth j (nth i [{'; '.join(rows)}] []) false)"


def steps(program, walk, tiles):
    """Rows of the tiles that see each other: some programs walk pairs of the schedule's."""
    found = {"q_len": tiles.q, "kv_len": tiles.kv}
    for _, loops in nodes(program.body):
        for over in (loop.index.over for loop in loops):
            if isinstance(over, Tiles) and over.seen_by is not None:
                found |= {t.axis.name: walk.number(t.step) for t in (over, over.seen_by.over)}
    return found


def query(name, program, problem, tiles, quantities):
    """The Coq command that counts these quantities of a program, with numbers for its sizes."""
    sizes = (
        problem.batch, problem.kv_heads, problem.group, problem.q_len, problem.kv_len, problem.head_dim,
        problem.value_dim, tiles.q, tiles.kv,
    )  # fmt: skip
    nest = f"({name} {' '.join(map(str, sizes))} {seen_tiles(program, problem, tiles)})"
    counts = "; ".join(f"N.of_nat (count (only ({quantity})) {nest})" for quantity in quantities)
    return f"Eval vm_compute in [{counts}]%list.\n"


def disagreements(folder, programs, language=LANGUAGE):
    """Where Coq counts otherwise than the walk: (program, problem, tiles, the walk's counts, Coq's)."""
    rng, text, cases = random.Random(7), [language, "From Coq Require Import NArith."], []
    for name, _, program in programs:
        text.append(definition(program, name))
        for _ in range(EACH):
            problem, tiles = instance(program, rng)
            counts = walk_counts(program, problem, tiles)
            text.append(query(name, program, problem, tiles, counts))
            cases.append((name, problem, tiles, list(counts.values())))
    (folder / "numbers.v").write_text("\n".join(text))
    lists = re.findall(r"= \[(.*?)\]", run([*COQC, "numbers.v"], folder), re.S)
    answers = [[int(n) for n in re.findall(r"(\d+)%N", numbers)] for numbers in lists]
    return [(*case, answer) for case, answer in zip(cases, answers, strict=True) if answer != case[-1]]


@needs_coq
def test_coq_counts_what_the_walk_counts(tmp_path):
    assert not disagreements(tmp_path, PROGRAMS)
