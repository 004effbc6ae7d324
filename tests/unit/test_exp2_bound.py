"""FlashAttention-4's software exp2, instruction by instruction, keeps its proved error bound; mutants do not."""

import numpy as np
import pytest

from ioaware_kernels.ptx.arithmetic import fused_multiply_add

BOUND = 8.772e-5  # relative; proofs/theories/Exp2Bits.v, exp2_program_error
COEFFICIENTS = (0.077119089663028717041015625, 0.227564394474029541015625, 0.695146143436431884765625, 1.0)
MAGIC = np.float32(2**23 + 2**22)
F32 = np.float32


def add_down(x, y):
    """add.rm where the sum is a whole number of at most 24 bits: the nearest one, or the one below it."""
    nearest = x + y
    return np.where(nearest - y > x, np.nextafter(nearest, F32(-np.inf)), nearest)


def software_exp2(x, coefficients=COEFFICIENTS, add=add_down):
    x = np.fmax(x, F32(-127))
    rounded = add(x, MAGIC)
    fraction = x - (rounded - MAGIC)
    p, *rest = map(F32, coefficients)
    for c in rest:
        p = fused_multiply_add()(p, fraction, c)
    return ((rounded.view(np.uint32) << np.uint32(23)) + p.view(np.uint32)).view(F32)


def error(x, **mutation):
    return np.abs(software_exp2(x, **mutation) / np.exp2(x.astype(float)) - 1).max()


def patterns(low, high):
    """Every 2048th fp32 number of [low, high], both ends included, as bits: all exponents alike."""
    first, last = (int(F32(x).view(np.uint32)) for x in (low, high))
    return np.append(np.arange(first, last, 2048, np.uint32), np.uint32(last)).view(F32)


NEGATIVE = patterns(-0.0, -126)
LAST_OCTAVE = np.linspace(-1, 0, 1 << 18, dtype=F32)  # every fraction


def test_the_proved_bound_holds_and_is_nearly_attained():
    assert error(NEGATIVE) < BOUND
    assert error(patterns(0.0, 127)) < BOUND
    assert 8.75e-5 < error(LAST_OCTAVE) < BOUND


def test_a_fraction_that_rounds_to_one():
    assert error(-(F32(2) ** np.arange(-149, 1, dtype=F32))) < BOUND
    assert software_exp2(F32([-(2.0**-30)])) == F32(sum(COEFFICIENTS)) / 2


def test_below_the_smallest_normal_number():
    """Theorems exp2_program_below and exp2_program_of_minus_infinity."""
    tail = software_exp2(np.append(patterns(np.nextafter(F32(-126), F32(-127)), -3e38), F32(-np.inf)))
    assert (tail >= 0).all()
    assert (tail < 2.0**-126).all()
    assert tail[-1] == 0


def changed(position):
    return {"coefficients": tuple(c + 1e-4 * (n == position) for n, c in enumerate(COEFFICIENTS))}


MUTANTS = {
    "c3": changed(0), "c2": changed(1), "c1": changed(2), "c0": changed(3),
    "degree 2": {"coefficients": COEFFICIENTS[1:]}, "rounds to nearest": {"add": np.add},
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_exceeds_the_bound(mutation):
    assert error(LAST_OCTAVE, **mutation) > BOUND
