"""Coq's transcription of the mask statistics of bands computes the simulator's numbers.

Bands.v proves that the transcription gives the sums over visible pairs of tiles; here it is run, with numbers.
"""

import random
import re

import pytest

from ioaware.masks import Band
from ioaware.masks import band as bands
from ioaware_proofs import bridge
from ioaware_proofs.coq import COQC, run
from tests.coq import needs_coq

pytestmark = needs_coq
CASES = 100
THEORIES = ("IOCounts", "FloorSum", "Bands")


def definitions():
    """What the theory computes, without what it proves: no theorem is needed here, and it compiles at once."""
    files = [(bridge.PROGRAMS.parent / f"{name}.v").read_text(encoding="utf-8") for name in THEORIES]
    text = re.sub(r"^From IOAware .*\n", "", "\n".join(files), flags=re.M)
    return re.sub(r"^ *(?:Lemma|Theorem)\b.*?\bQed\.\n", "", text, flags=re.M | re.S)


def instances():
    """Bands of every kind, lengths of every order, tiles of every size."""
    rng = random.Random(11)
    for _ in range(CASES):
        band = Band(*(rng.choice([None, 0, rng.randint(0, 40)]) for _ in range(2)))
        yield band, *(rng.randint(1, 40) for _ in range(2)), *(rng.randint(1, 12) for _ in range(2))


def disagreements(folder):
    """Where Coq computes other statistics than the simulator."""
    cases = list(instances())
    bounds = [["None" if side is None else f"(Some {side})" for side in (band.left, band.right)] for band, *_ in cases]
    calls = [" ".join(["band", *sides, *map(str, sizes)]) for sides, (_, *sizes) in zip(bounds, cases, strict=True)]
    text = f"{definitions()}\nEval vm_compute in [{'; '.join(calls)}]%list.\n"
    (folder / "numbers.v").write_text(text)
    said = run([*COQC, "numbers.v"], folder)
    answers = [
        tuple(map(int, re.findall(r"-?\d+", found)))
        for found in re.findall(r"\(([^()]*)\)", said.partition(" : list")[0])
    ]
    statistics = bands._band.__wrapped__  # without its cache
    wanted = [statistics(band.left, band.right, *sizes)[:4] for band, *sizes in cases]
    return [case for case, found, right in zip(cases, answers, wanted, strict=True) if found != right]


def test_coq_computes_what_the_simulator_computes(tmp_path):
    assert not disagreements(tmp_path)


floor_sum = bands._floor_sum


@pytest.mark.parametrize(
    "wrong",
    [lambda n, m, a, b: floor_sum(n, m, a, b % m), lambda n, m, a, b: floor_sum(n, m, a % m, b)],
    ids=["a high start", "a steep line"],
)
def test_the_numbers_refute_a_wrong_sum_of_floors(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(bands, "_floor_sum", wrong)
    assert disagreements(tmp_path)
