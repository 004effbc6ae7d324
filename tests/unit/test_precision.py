"""Formats against brute force, scales, rotations and exp2 against their definitions, attention against float64."""

from fractions import Fraction
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

from ioaware import reference as textbook
from ioaware.errors import InputError
from ioaware.kv_cache import restored
from ioaware.masks import CAUSAL, FULL, Band
from ioaware.precision import attention, exp2, incoherent, measure, scales
from ioaware.precision.attention import Standard, Tiled, exact
from ioaware.precision.formats import FORMATS, find, rounded
from ioaware.precision.method import Method, Stored
from ioaware.precision.methods import METHODS, find_method
from ioaware.problem import AttentionProblem
from tests.unit.narrow_definitions import nearest_bits, value

F32 = np.float32
NARROW = {  # format: what stores it
    "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip
DEFINED = {"fp16": "f16", "bf16": "bf16", "tf32": "tf32", "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2"}


# ------------------------------------------------------------------------------------------------ formats
def finite(name):
    """Every finite number of a format from 0 on, in the order of its bits, which is that of size: float64."""
    dtype = np.dtype(NARROW[name])
    codes = np.arange(1 << (8 * dtype.itemsize - 1), dtype=f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):
        numbers = codes.view(dtype).astype(np.float64)
    return numbers[np.isfinite(numbers)]


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_every_number_of_a_format_stays_and_every_tie_goes_to_even(name, real):
    numbers = finite(name).astype(real)
    low, high = numbers[:-1], numbers[1:]
    middle = (high - low) / 2 + low
    even = np.where(np.arange(len(low)) % 2, high, low)
    beside = (np.nextafter(middle, real(0)), low), (np.nextafter(middle, real(np.inf)), high)
    for x, wanted in ((numbers, numbers), (middle, even), *beside):
        assert rounded(x, name).tobytes() == wanted.tobytes()
        assert rounded(-x, name).tobytes() == (-wanted).tobytes()


@pytest.mark.parametrize("name", NARROW)
def test_rounding_is_that_of_ml_dtypes(name):
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    x = bits.view(F32)
    x = x[np.abs(x) <= find(name).greatest]
    assert rounded(x, name).tobytes() == x.astype(NARROW[name]).astype(F32).tobytes()


@pytest.mark.parametrize("name", DEFINED)
def test_rounding_is_to_the_nearest_number_as_fractions_have_it(name):
    form, rng = find(name), np.random.default_rng(0)
    highest = min(np.log2(form.greatest), 7)  # the definition of e4m3 ends at 240
    x = 2.0 ** rng.uniform(form.lowest - form.mantissa - 1, highest, 300) * rng.choice([-1, 1], 300)
    ties = [
        1 + 2.0 ** -(form.mantissa + 1),
        1 + 3 * 2.0 ** -(form.mantissa + 1),
        2.0 ** (form.lowest - form.mantissa - 1),
    ]
    for number in map(float, [*x, *ties]):
        code = nearest_bits(Fraction(number), DEFINED[name], ties_away=name == "tf32")
        assert rounded(np.array([number]), name)[0] == value(code, DEFINED[name])


def test_tf32_is_what_integer_arithmetic_makes_of_the_bits():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    x = bits.view(F32)
    fine = np.isfinite(x) & (np.abs(x) <= find("tf32").greatest)
    assert (rounded(x[fine], "tf32").view(np.uint32) == (bits[fine] + np.uint32(1 << 12)) >> 13 << 13).all()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_integers_round_to_even_and_stop_at_the_greatest(name):
    most = find(name).greatest
    x = np.arange(-4 * most, 4 * most + 1, dtype=F32) / F32(2)
    assert (rounded(x, name) == np.clip(np.rint(x), -most, most)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_finite_number_and_what_is_too_large(name):
    form = find(name)
    nan, up, down, zero, beyond = rounded(np.array([np.nan, np.inf, -np.inf, -0.0, 1e300]), name)
    top = form.greatest if form.saturates else np.inf
    assert np.isnan(nan)
    assert (up, down) == (top, -top)
    assert np.signbit(zero)
    assert beyond == (1e300 if name == "fp64" else top)


def test_e4m3_saturates_at_448_where_a_cast_would_give_nan():
    x = np.array([449.0, 465.0, 1e4, -np.inf], F32)
    assert rounded(x, "fp8_e4m3").tolist() == [448, 448, 448, -448]
    with np.errstate(invalid="ignore"):
        assert np.isnan(x.astype(ml_dtypes.float8_e4m3fn).astype(F32)).any()


def test_a_format_by_another_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="format 'fp8_e4m2' is unknown, the nearest is 'fp8_e4m3'"):
        rounded(np.ones(1), "fp8_e4m2")


# ------------------------------------------------------------------------------------------------ scales
SHARES = {
    "tensor": scales.PER_TENSOR, "head": scales.PER_HEAD, "token": scales.PER_TOKEN,
    "channel": scales.PER_CHANNEL, "block": scales.per_block(7),
}  # fmt: skip


def uneven(heads=2, rows=30, columns=8):
    """Numbers whose size differs by heads, rows and columns."""
    rng = np.random.default_rng(1)
    size = np.exp(3 * rng.standard_normal((heads, 1, 1)) + 3 * rng.standard_normal((1, rows, 1)))
    return rng.standard_normal((heads, rows, columns)) * size


def within_half_a_step(x, name, share):
    """Is every number off by half a step of its own box at most? The fp32 scale may be off by 2^-24 itself."""
    off = np.abs(x - scales.quantised(x, name, share).restored)
    boxes = np.empty_like(x)
    sizes = [n if b is None else b for n, b in zip(x.shape, share.box, strict=True)]
    for start in np.ndindex(*(-(-n // b) for n, b in zip(x.shape, sizes, strict=True))):
        box = tuple(slice(i * b, (i + 1) * b) for i, b in zip(start, sizes, strict=True))
        boxes[box] = np.abs(x[box]).max()
    form = find(name)
    scale = boxes / form.greatest
    size = np.maximum(np.abs(x) / scale, 2.0**form.lowest)
    step = scale * 2.0 ** (np.floor(np.log2(size)) - form.mantissa)
    return (off <= step / 2 + 2.0**-22 * np.abs(x)).all()


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("name", ["int8", "int4", "fp8_e4m3", "fp8_e5m2"])
def test_what_is_restored_is_off_by_half_a_step_at_most(name, share):
    x = uneven()
    assert within_half_a_step(x, name, share)
    found = scales.quantised(x, name, share)
    assert found.scale.size in (share.count(x.shape), x.shape[0] * x.shape[1])  # one per row, where boxes are rows
    assert len(np.unique(found.scale)) == share.count(x.shape)
    assert np.abs(found.codes).max() == find(name).greatest


def test_a_scale_of_the_wrong_block_is_noticed(monkeypatch):
    right = scales.Share.largest
    monkeypatch.setattr(scales.Share, "largest", lambda self, x: np.roll(right(self, x), 7, axis=1))
    assert not within_half_a_step(uneven(), "int8", scales.per_block(7))


def test_zeros_have_a_scale():
    found = scales.quantised(np.zeros((1, 4, 4)), "int8", scales.PER_TOKEN)
    assert (found.scale == 1).all()
    assert (found.restored == 0).all()


@pytest.mark.parametrize(("share", "axes"), [("tensor", (0, 1, 2)), ("head", (1, 2)), ("token", (2,))])
@pytest.mark.parametrize(("name", "greatest"), [("int8", 127), ("int4", 7), ("fp8_e4m3", 448), ("fp8_e5m2", 57344)])
def test_a_kv_cache_stores_numbers_of_its_format_with_a_scale_for_all_that_share_it(name, greatest, share, axes):
    x = uneven()
    scale = (np.abs(x).max(axis=axes, keepdims=True) / greatest).astype(F32)
    codes = np.rint(x / scale) if name in ("int8", "int4") else (x / scale).astype(NARROW[name]).astype(np.float64)
    assert (restored(x, name, share) == codes * scale).all()


# ------------------------------------------------------------------------------------------------ rotation
def test_the_transform_is_sylvesters_matrix_orthogonal_and_its_own_inverse():
    d = 64
    h = incoherent.hadamard(np.eye(d))
    parity = np.array([[(i & j).bit_count() % 2 for j in range(d)] for i in range(d)])
    assert (h == np.where(parity, -1.0, 1.0) / 8).all()
    assert np.allclose(h @ h.T, np.eye(d), rtol=0, atol=2.0**-50)
    x = np.random.default_rng(0).standard_normal((3, d))
    assert np.allclose(incoherent.hadamard(incoherent.hadamard(x)), x, rtol=0, atol=2.0**-48)


def products(q, k):
    return q @ k.swapaxes(1, 2)


def test_scores_do_not_change_and_outliers_are_spread():
    q, k = (x.astype(np.float64) for x in measure.inputs(2, 60, 128, outliers=True)[:2])
    turned = incoherent.rotated(q), incoherent.rotated(k)
    assert np.allclose(products(*turned), products(q, k), rtol=0, atol=1e-12)
    assert np.abs(turned[0]).max() < np.abs(q).max() / 2
    assert not np.allclose(products(turned[0], k), products(q, k), rtol=0, atol=1)  # the mutant: Q only


def test_random_signs_spread_what_is_alike_in_all_columns():
    row = np.ones((1, 1, 128))
    assert np.abs(incoherent.hadamard(row)).max() == pytest.approx(128**0.5)  # one outlier, where there was none
    assert np.abs(incoherent.rotated(row)).max() < 128**0.5 / 2


@pytest.mark.parametrize(("d", "nearest"), [(96, 128), (80, 64), (0, 1), (3, 4)])
def test_other_head_dimensions_are_refused(d, nearest):
    with pytest.raises(InputError, match=f"head_dim={d}: .*power of two; the nearest legal value is {nearest}$"):
        incoherent.check(d)


# ------------------------------------------------------------------------------------------------ exp2
@pytest.mark.parametrize(
    ("degree", "fp32", "bf16"), [(3, 8.77e-5, 3.90e-3), (4, 3.05e-6, 3.89e-3), (5, 1.44e-7, 3.89e-3)]
)
def test_flashattention_4_table_of_polynomials(degree, fp32, bf16):
    assert exp2.greatest_error(degree) == pytest.approx(fp32, rel=5e-3)
    assert exp2.greatest_error(degree, "bf16") == pytest.approx(bf16, rel=2e-3)


def test_numpys_exp2_is_no_worse_than_the_hardwares():
    assert exp2.greatest_error(0) < 1.41e-7  # of ex2.approx, in the same table


def test_the_proved_bound_and_the_far_end():
    x = np.linspace(-126, 127, 1 << 18, dtype=F32)
    assert np.abs(exp2.software_exp2(x) / np.exp2(x.astype(float)) - 1).max() < 8.772e-5  # exp2_program_error
    below = exp2.software_exp2(np.array([-126.5, -200, -np.inf], F32))
    assert ((below >= 0) & (below < 2.0**-126)).all()
    assert below[-1] == 0


@pytest.mark.parametrize(("period", "columns"), [(10, 24), (16, 16)])
def test_a_tenth_to_a_quarter_of_a_row_is_emulated(period, columns):
    """Two of four groups of 32 columns, and in each 4 of every 10 or 16, cut off at 32."""
    assert exp2.emulated(128, period).sum() == columns
    assert 0.10 <= columns / 128 <= 0.25  # FlashAttention-4, 3.1.3


def test_the_polynomial_is_used_where_it_should_be():
    x = np.random.default_rng(0).uniform(-9, 0, (5, 128)).astype(F32)
    where = exp2.emulated(128)
    assert (exp2.mixed_exp2(x)[:, where] == exp2.software_exp2(x)[:, where]).all()
    assert (exp2.mixed_exp2(x)[:, ~where] == np.exp2(x)[:, ~where]).all()


# ------------------------------------------------------------------------------------------------ attention
def one_head(rows=70, keys=90, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((n, d)).astype(F32) for n in (rows, keys, keys))


@pytest.mark.parametrize("mask", [FULL, CAUSAL, Band(left=5, right=3)], ids=str)
def test_the_reference_is_the_textbooks(mask):
    q, k, v = one_head()
    problem = AttentionProblem(q_len=70, kv_len=90, head_dim=16, mask=mask, dtype="fp64", accum_dtype="fp64")
    wanted = textbook.attention(problem, {"Q": q[None, None], "K": k[None], "V": v[None]})["O"][0, 0]
    assert np.allclose(exact(q, k, v, 0.25, mask), wanted, rtol=0, atol=1e-14)


FP32 = {"weights": "fp32", "out": "fp32"}


def off(attend, mask=None, *, stretch=1.0):
    """Largest difference from float64, in units of the fp32 rounding of the largest value."""
    q, k, v = one_head()
    q = q * F32(stretch)
    return np.abs(attend(q, k, v, 0.25, mask) - exact(q, k, v, 0.25, mask)).max() / (2.0**-24 * np.abs(v).max())


# Each of the 90 keys adds roundings of its score (16 products of up to 40), of exp2 and of the sum.
CLOSE = 90 * 4


@pytest.mark.parametrize("mask", [None, CAUSAL, Band(left=5, right=3)], ids=str)
@pytest.mark.parametrize("changes", [{}, {"threshold": 8.0}, {"offset": 8.0}, {"tile": 90}, {"tile": 1}], ids=str)
def test_tiles_offsets_and_lazy_rescaling_change_nothing_but_rounding(mask, changes):
    attend = Tiled(**{"tile": 16, **FP32, **changes})
    assert off(attend, mask, stretch=4.0) < CLOSE
    assert off(Standard("fp32"), mask, stretch=4.0) < CLOSE


def test_weights_are_rounded_before_the_second_product_and_their_sum_is_not():
    """Two keys of weights 1 and 2^-1/2 = 0.707: nearest in e4m3 are 11/16, and 13/32 to the normalised 0.414."""
    q, k, v = (np.array(x, F32)[:, None] for x in ([1], [0, -0.5], [0, 1]))
    log2 = float(np.log(2))
    assert Tiled(2, "fp8_e4m3", "fp32")(q, k, v, log2, None)[0, 0] == pytest.approx(
        11 / 16 / (1 + 2**-0.5), rel=2.0**-22
    )
    assert Standard("fp32", "fp8_e4m3")(q, k, v, log2, None)[0, 0] == 13 / 32


class Unscaled(Tiled):
    """The mutant: sums over earlier tiles stay as they are when the reference changes."""

    def factor(self, m, new):
        return np.ones_like(m)


@pytest.mark.parametrize("threshold", [0.0, 8.0])
def test_without_rescaling_the_result_is_wrong(threshold):
    with np.errstate(invalid="ignore"):
        assert off(Unscaled(16, **FP32, threshold=threshold), stretch=8.0) > 100 * CLOSE


def test_lazy_rescaling_keeps_the_reference_until_it_is_exceeded_by_more_than_the_threshold():
    lazy = Tiled(16, **FP32, threshold=8.0)
    m, most = np.array([0.0, 0.0, 0.0, -np.inf, -np.inf]), np.array([-1.0, 8.0, 8.5, 3.0, -np.inf])
    assert lazy.reference(m, most).tolist() == [0, 0, 8.5, 3, -np.inf]
    assert Tiled(16, **FP32).reference(m, most).tolist() == [0, 8, 8.5, 3, -np.inf]


@pytest.mark.parametrize(
    "attend",
    [exact, Standard("fp16"), Tiled(8, "fp16", "fp16", exp2=exp2.mixed_exp2)],
    ids=["exact", "standard", "tiled"],
)
def test_a_row_that_sees_no_key_is_zero(attend):
    q, k, v = one_head(rows=20, keys=9)  # bottom-right: the first 11 rows see nothing
    out = attend(q, k, v, 0.25, CAUSAL)
    assert (out[:11] == 0).all()
    assert (out[11:] != 0).all()


def test_blocks_of_rows_are_no_different_from_all_rows_at_once(monkeypatch):
    q, k, v = one_head()
    attends = Standard("fp16"), Tiled(16, "fp16", "fp16")
    wanted = [attend(q, k, v, 0.25, CAUSAL) for attend in attends]
    monkeypatch.setattr(attention, "SCORES", 700)
    for attend, out in zip(attends, wanted, strict=True):
        assert np.allclose(attend(q, k, v, 0.25, CAUSAL), out, rtol=2.0**-10, atol=2.0**-20)


# ------------------------------------------------------------------------------------------------ methods
@pytest.fixture(scope="module")
def found():
    """Errors of all methods on ordinary inputs."""
    x = measure.inputs(2, 512, 128, seed=3)
    return {m.name: errors.rmse for m, errors in measure.measured(METHODS.values(), x)}


@pytest.mark.parametrize(("coarse", "fine", "steps"), [
    ("flash2_bf16", "flash2", 8), ("standard_bf16", "standard_fp16", 8), ("flash3_e5m2", "flash3_fp8", 2),
    ("kv_int4", "kv_int8", 127 / 7),
])  # fmt: skip
def test_errors_grow_as_the_steps_of_the_format(found, coarse, fine, steps):
    """To first order an error is a sum of roundings, each proportional to the format's step."""
    assert found[coarse] / found[fine] == pytest.approx(steps, rel=0.15)


def test_narrower_formats_are_less_exact_and_tiling_is_more_exact_than_the_standard_way(found):
    order = ["flash_fp32", "flash_tf32", "flash2", "flash2_bf16", "kv_fp8_e4m3", "flash3_fp8", "flash3_e5m2", "kv_int4"]
    assert all(found[a] < found[b] for a, b in pairwise(order))
    for precision in ("flash_fp32", "flash2", "flash3", "flash2_bf16", "flash4"):
        assert found[precision] < found[find_method(precision).standard]


def test_after_rounding_to_bf16_the_polynomial_costs_next_to_nothing(found):
    assert found["flash4"] == pytest.approx(found["flash2_bf16"], rel=0.05)


def test_rotating_q_alone_is_noticed():
    x = measure.inputs(1, 128, 64)
    whole = find_method("flash3_fp8")
    mutant = Method("q_only", "", whole.attend, whole.q, Stored("fp8_e4m3", scales.per_block(224)), whole.v)
    right, wrong = (measure.errors(m(*x, 0.125), measure.reference(*x, 0.125)).frobenius for m in (whole, mutant))
    assert right < 0.1 < 1 < wrong


@pytest.mark.parametrize(("name", "per_head"), [
    ("standard_fp32", 3 * 300 * 64 * 4), ("flash_tf32", 3 * 300 * 64 * 4), ("flash2", 3 * 300 * 64 * 2),
    ("flash3_fp8", 3 * 300 * 64 + 4 * (3 + 2 + 2)), ("int8_qk", 300 * 64 * (1 + 1 + 2) + 4 * (3 + 5)),
    ("kv_int4", 300 * 64 * (2 + 1) + 4 * (300 + 300)),
])  # fmt: skip
def test_bytes_of_the_inputs(name, per_head):
    assert find_method(name).nbytes(*measure.inputs(2, 300, 64)) == 2 * per_head


def test_outliers_are_one_in_a_thousand_of_ten_times_the_size():
    x = measure.inputs(1, 2000, 128, outliers=True)[0]
    large = np.abs(x) > 5
    expected = 0.001 * 0.6187 * x.size  # P(|N(0, 101)| > 5) = 0.6187
    assert abs(large.sum() - expected) < 4 * expected**0.5
    assert x[~large].std() == pytest.approx(1, rel=0.01)


def test_errors_are_what_they_say():
    wanted = np.array([[3.0, 4.0]])
    assert measure.errors(wanted + np.array([[0.3, -0.4]]), wanted) == pytest.approx((0.125**0.5, 0.4, 0.1))
