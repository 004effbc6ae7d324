"""The two-level machine of proofs/theories/Machine.v once more, in Python: it plays a trace without any proof."""

from __future__ import annotations

from ioaware.readers.words import Entry, Other, Output, Score


def play(trace):
    """(most words held, loads, stores, slow memory); an AssertionError names the operation that is not legal."""
    fast, slow, most, moved = set(), set(), 0, {"load": 0, "store": 0, "compute": 0}
    for n, (verb, word, dropped) in enumerate(trace.operations):
        moved[verb] += 1
        if verb == "load":
            assert isinstance(word, Entry) or word in slow, (n, word)
        elif verb == "store":
            assert word in fast, (n, word)
            slow.add(word)
        else:
            assert made_from(fast, word, trace.head_dim), (n, word)
        if verb != "store":
            fast.add(word)
        assert fast >= set(dropped), (n, dropped)
        fast -= set(dropped)
        most = max(most, len(fast))
    return most, moved["load"], moved["store"], slow


def made_from(fast, word, head_dim):
    """Whether the word can be computed from what is in fast memory."""
    match word:
        case Score(i, j):
            return all({Entry("Q", i, a), Entry("K", j, a)} <= fast for a in range(head_dim))
        case Output(i, c, keys):
            parts = [set(w.keys) for w in fast if isinstance(w, Output) and w[:2] == (i, c)]
            fresh = {j for j in keys if {Score(i, j), Entry("V", j, c)} <= fast}
            return not keys or (bool(parts) and set(keys) <= fresh.union(*parts))
        case Other():
            return True
    return False


def complete(trace, slow):
    """Whether every output is in slow memory, from exactly its visible keys."""
    return all(Output(i, c, keys) in slow for i, keys in trace.rows for c in range(trace.value_dim))
