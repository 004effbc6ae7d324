"""Is a broken trace rejected, by both checkers and at the right operation? Is a broken checker refused by Coq?"""

import re
import shutil
from dataclasses import replace

import pytest

from ioaware.algorithms import find
from ioaware.errors import VerificationError
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.trace import Operation, trace
from ioaware.readers.words import Entry, Output, Score
from ioaware_proofs import coq
from ioaware_proofs.theory import root
from tests.checkers import compiled
from tests.coq import needs_coq

pytestmark = needs_coq


def good(name="flash2"):
    problem = AttentionProblem(q_len=4, head_dim=2, dtype="fp32", mask="causal")
    return trace(record(find(name).forward, problem.features), problem, TileSizes(2, 2))


def where(made, verb, kind, *, last=False):
    found = [n for n, o in enumerate(made.operations) if o.verb == verb and isinstance(o.word, kind)]
    return found[-1 if last else 0]


def changed(made, at, *operations):
    return replace(made, operations=[*made.operations[:at], *operations, *made.operations[at + 1 :]])


def used_next(made, at):
    """The first operation from `at` on whose sum needs a new score."""
    needs = made.operations[at].word
    found = (n for n, o in enumerate(made.operations) if isinstance(o.word, Output) and needs.key in o.word.keys)
    return next(n for n in found if made.operations[n].word.query == needs.query)


def without_a_score():
    made = good()
    at = where(made, "compute", Score)
    return changed(made, at), rf"operation {used_next(made, at) - 1}, compute O\[0, 0\], .*an operand"


def without_a_load():
    made = replace(good(), loads=good().loads - 1)
    return changed(made, where(made, "load", Entry)), r"compute the score of query 0 and key 0: an operand"


def a_word_dropped_too_early():
    made = good()
    at = where(made, "load", Entry)
    first = made.operations[at]
    broken = changed(made, at, first._replace(dropped=[first.word]))
    return broken, rf"operation {where(made, 'compute', Score)}, compute the score of query 0 and key 0: an operand"


def a_word_less_of_memory():
    made = good()
    return replace(made, memory=made.memory - 1), rf"fast memory would hold more than {made.memory - 1} words"


def a_word_kept_for_too_long():
    made = good()
    operations = [o._replace(dropped=[w for w in o.dropped if w != Entry("K", 0, 0)]) for o in made.operations]
    return replace(made, operations=operations), "fast memory would hold more than"


def without_a_store():
    made = good()
    at = where(made, "store", Output, last=True)
    return changed(replace(made, stores=made.stores - 1), at), r"the output of query 3, column 1, is not in slow memory"


def a_store_out_of_nothing():
    made = good()
    return changed(made, 0, Operation("store", Output(0, 0, (0,)), [])), r"operation 0, store .* not in fast memory"


def a_load_that_is_not_counted():
    made = good()
    at = where(made, "load", Entry)
    return changed(made, at, made.operations[at], made.operations[at]), "the checker counts 33 loads .* claims 32"


def a_load_of_what_was_never_stored():
    made = good()
    score = made.operations[where(made, "compute", Score)].word
    at = where(made, "compute", Score)
    return changed(made, at, Operation("load", score, [])), rf"operation {at}, load the score.*never stored"


def an_output_that_lacks_a_key():
    made = good()
    at = where(made, "store", Output, last=True)
    query = made.operations[at].word.query
    rows = [(i, (*k, 9) if i == query else k) for i, k in made.rows]
    return replace(made, rows=rows), rf"the output of query {query}, column 0, .* exactly the keys"


def a_row_twice():
    made = good()
    return replace(made, rows=[*made.rows, made.rows[-1]]), "not in increasing order"


MUTANTS = (
    without_a_score, without_a_load, a_word_dropped_too_early, a_word_less_of_memory, a_word_kept_for_too_long,
    without_a_store, a_store_out_of_nothing, a_load_that_is_not_counted, a_load_of_what_was_never_stored,
    an_output_that_lacks_a_key, a_row_twice,
)  # fmt: skip
ALSO_IN_COQ = (without_a_score, a_word_less_of_memory, without_a_store, a_load_that_is_not_counted)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda f: f.__name__)
def test_a_broken_trace_is_rejected(mutant):
    broken, message = mutant()
    with pytest.raises(VerificationError, match=message):
        compiled().extracted(broken)


@pytest.mark.parametrize("mutant", ALSO_IN_COQ, ids=lambda f: f.__name__)
def test_the_kernel_rejects_it_for_the_same_reason(mutant):
    broken, message = mutant()
    with pytest.raises(VerificationError, match=message):
        compiled().in_coq(broken)


BREAKS = {  # one place of Checker.v, and what a careless checker would have there
    "any number of words": ("if n <=? M then inl", "if true then inl"),
    "free loads": ("(S (read b)) (written b)", "(read b) (written b)"),
    "loads out of nothing": ("inputb w || has slow w", "true"),
    "stores out of nothing": ("if has t w then None else Some NotInFast", "None"),
    "half of the operands": ("has t (Left p i a) && has t (Right p j a)", "has t (Left p i a)"),
    "unfinished scores": ("complete_score t i j && has t (V j k)", "has t (V j k)"),
    "rows in any order": ("increasing (map fst E) && ", ""),
}


@pytest.mark.parametrize("name", BREAKS)
def test_coq_refuses_the_proof_of_a_broken_checker(name, tmp_path):
    old, new = BREAKS[name]
    text = (root() / "theories" / "Checker.v").read_text(encoding="utf-8")
    assert len(re.findall(re.escape(old), text)) == 1
    for compiled_file in compiled().folder.glob("*.vo"):
        shutil.copy(compiled_file, tmp_path)
    (tmp_path / "Checker.v").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(VerificationError, match=r"Checker\.v:\d+: Coq says"):
        coq.run([*coq.COQC, "Checker.v"], tmp_path)
