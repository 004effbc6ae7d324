"""Units: capacities are 1024-based, rates 1000-based, and whatever is neither is refused in a sentence that helps."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware.units import (
    LARGEST,
    parse_bytes,
    parse_count,
    parse_rate,
    show_bytes,
    show_capacity,
    show_scaled,
    show_time,
)

KI, MI, GI, TI = (1024**power for power in (1, 2, 3, 4))


def refusal(parse, text, name="sram"):
    """The message, which names what was given."""
    with pytest.raises(InputError) as error:
        parse(text, name)
    message = str(error.value)
    assert message.startswith(f"{name}={text}: ")
    return message


def nearest(message):
    """The nearest legal value, as it would be typed."""
    return message.partition("the nearest legal value is ")[2]


# Capacities


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("192KB", 196_608),
        ("192KiB", 196_608),
        ("192kB", 196_608),
        ("192K", 196_608),
        (" 192 KB ", 196_608),
        ("196608", 196_608),
        ("196,608", 196_608),
        ("196_608B", 196_608),
        (196_608, 196_608),
        ("40MB", 40 * MI),
        ("80GB", 80 * GI),
        ("1TiB", TI),
        ("0.5KB", 512),
        ("1.5MB", MI + MI // 2),
        ("2e3", 2000),
        ("1", 1),
        ("1e15", LARGEST),
    ],
)
def test_capacities(text, size):
    assert parse_bytes(text) == size
    assert isinstance(parse_bytes(text), int)


@given(st.integers(1, LARGEST))
def test_a_bare_number_is_bytes(n):
    assert parse_bytes(str(n)) == parse_bytes(f"{n:,}") == parse_bytes(n) == n


@given(st.integers(1, 900), st.sampled_from([("K", KI), ("M", MI), ("G", GI), ("T", TI)]))
def test_prefixes(n, prefix):
    letter, factor = prefix
    forms = (f"{n}{letter}", f"{n}{letter}B", f"{n}{letter}iB", f"{n} {letter.lower()}B")
    assert {parse_bytes(form) for form in forms} == {n * factor}


@pytest.mark.parametrize("text", ["192Kb", "192kb", "8b", "1Gbit"])
def test_bits_are_refused(text):
    assert "lower-case b means bits" in refusal(parse_bytes, text)


def test_bits_are_answered_with_bytes():
    assert refusal(parse_bytes, "192Kb").endswith("write bytes, like 192KB")


@pytest.mark.parametrize("text", ["192 XB", "5 apples", "3KBB", "1 KM", "7/s", "5i", "5iB"])
def test_unknown_units_are_refused(text):
    assert "use B, KB, MB or GB (1024-based)" in refusal(parse_bytes, text)


@pytest.mark.parametrize("parse", [parse_bytes, parse_count, parse_rate])
@pytest.mark.parametrize("text", ["nan", "-inf", "", " ", "KB", "1 2", "1..2", "1,2", "0x10", "١", "--1", None, True])
def test_what_is_no_number_is_refused(parse, text):
    assert "not a number; write " in refusal(parse, text)


@pytest.mark.parametrize("parse", [parse_bytes, parse_count])
@pytest.mark.parametrize("text", ["0", "-1", "-5K", "0.0", -3, "0.2"])
def test_nothing_and_less_is_refused(parse, text):
    assert nearest(refusal(parse, text)) == "1"


@pytest.mark.parametrize(("text", "exact"), [("1.5", 1.5), ("0.3KB", 307.2), ("2.0001K", 2048.1), ("1e-3M", 1048.6)])
def test_fractions_of_a_byte_are_refused(text, exact):
    message = refusal(parse_bytes, text)
    assert "must be a whole number of bytes" in message
    assert abs(parse_bytes(nearest(message)) - exact) <= 0.5


@pytest.mark.parametrize("text", ["1e16", "1000000TB", f"{LARGEST + 1}", "1e300"])
def test_absurd_sizes_are_refused(text):
    message = refusal(parse_bytes, text)
    assert "at most 10^15" in message
    assert parse_bytes(nearest(message)) == LARGEST


@pytest.mark.parametrize("parse", [parse_bytes, parse_count])
@pytest.mark.parametrize("text", ["1e1000000", "1e-1000000", "1e99999999999"])
def test_exponents_beyond_arithmetic_are_refused_too(parse, text):
    refusal(parse, text)


# Counts


@pytest.mark.parametrize(
    ("text", "n"),
    [("8192", 8192), ("8K", 8192), ("8k", 8192), ("1M", MI), ("1.5K", 1536), ("8,192", 8192), (8192, 8192)],
)
def test_counts(text, n):
    assert parse_count(text) == n


@pytest.mark.parametrize("text", ["8KB", "8Ki", "8x", "8/s"])
def test_a_count_has_no_unit(text):
    assert "use K, M or G (1024-based) or none" in refusal(parse_count, text, "N")


def test_a_fraction_of_a_row_is_refused():
    message = refusal(parse_count, "7.4", "N")
    assert "must be an integer" in message
    assert nearest(message) == "7"


@given(st.integers(1, LARGEST // GI), st.sampled_from([("", 1), ("K", KI), ("M", MI), ("G", GI)]))
def test_counts_scale(n, prefix):
    letter, factor = prefix
    assert parse_count(f"{n}{letter}") == n * factor


# Rates


@pytest.mark.parametrize(
    ("field", "text", "rate"),
    [
        ("hbm_bytes_per_s", "1555GB/s", 1.555e12),
        ("hbm_bytes_per_s", "2TB/s", 2e12),
        ("fp16_flop_per_s", "312TFLOP/s", 3.12e14),
        ("fp16_flop_per_s", "312TFLOPS", 3.12e14),
        ("clock_hz", "1.41GHz", 1.41e9),
        ("clock_hz", "1410 MHz", 1.41e9),
        ("memory_transfers_per_s", "9GT/s", 9e9),
        ("memory_transfers_per_s", "5T/s", 5.0),
        ("hbm_bytes_per_s", "1e12", 1e12),
        ("hbm_bytes_per_s", "2T", 2e12),
        ("clock_hz", 1.5e9, 1.5e9),
        ("clock_hz", 7, 7.0),
    ],
)
def test_rates_are_1000_based(field, text, rate):
    assert parse_rate(text, field) == pytest.approx(rate, rel=1e-15)
    assert isinstance(parse_rate(text, field), float)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("hbm_bytes_per_s", text) for text in ("1555Gb/s", "1555GBps", "3 apples", "1GB", "1 GiB/s", "1GHz")),
        *(("clock_hz", text) for text in ("1.4GB/s", "1 Ghertz", "5TFLOP/s")),
        *(("fp16_flop_per_s", text) for text in ("312TB/s", "1GHz")),
    ],
)
def test_a_rate_of_anything_else_is_refused(field, text):
    assert "(1000-based)" in refusal(parse_rate, text, field)


@pytest.mark.parametrize("text", ["0", "-5GB/s", "1e31", "1e400", "1e-400", -1.0, 0.0])
def test_a_rate_is_positive_and_finite(text):
    message = refusal(parse_rate, text, "hbm_bytes_per_s")
    assert 0 < parse_rate(nearest(message), "hbm_bytes_per_s") < math.inf


@pytest.mark.parametrize("text", [math.nan, math.inf])
def test_a_float_that_is_no_rate(text):
    refusal(parse_rate, text, "clock_hz")


# Shown, and understood again


@given(st.integers(1, LARGEST))
def test_what_is_shown_of_a_capacity_is_exact(n):
    shown = show_capacity(n)
    exact = re.search(r"([0-9,]+) B\)?$", shown)
    assert parse_bytes(exact[1]) == n


@given(st.integers(1, 999), st.sampled_from([KI, MI, GI]))
def test_what_is_shown_of_a_round_capacity_can_be_typed_again(n, unit):
    assert parse_bytes(show_capacity(n * unit).partition(" (")[0]) == n * unit


def test_a_capacity_is_shown_as_people_write_it():
    assert show_capacity(196_608) == "192 KiB (196,608 B)"
    assert show_capacity(40 * MI) == "40 MiB (41,943,040 B)"
    assert show_capacity(1000) == "1,000 B"


@pytest.mark.parametrize(
    ("n", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (270_532_608, "270.5 MB")),
        *((1.5e12, "1.5 TB"), (10**18, "1 EB"), (3e25, "3.000e+07 EB")),
    ],
)
def test_traffic_is_shown_1000_based(n, text):
    assert show_bytes(n) == text


@given(st.floats(1, 1e17))
def test_four_digits_are_shown(x):
    number, _, unit = show_scaled(x, "B").partition(" ")
    power = {"B": 0, "kB": 3, "MB": 6, "GB": 9, "TB": 12, "PB": 15}[unit]
    assert float(number) * 10.0**power == pytest.approx(x, rel=0.5e-3)


def test_a_difference_is_shown_with_its_sign():
    assert show_bytes(-5 * 10**9) == "-5 GB"


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2 s"), (1.234e-3, "1.234 ms"), (5e-6, "5 us"), (3.25e-8, "32.5 ns"), (0.0, "0 ns")]
)
def test_times(seconds, text):
    assert show_time(seconds) == text
