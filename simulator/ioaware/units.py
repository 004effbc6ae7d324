"""Quantities at the edge of the program: text becomes exact base units here, and nowhere else.

Capacities are 1024-based, as every GPU datasheet means "192 KB" of SRAM; rates are 1000-based, as the same datasheet
means "1555 GB/s". Bits are refused. Inside, bytes are `int`, rates are `float` per second.
"""

from __future__ import annotations

import re
from typing import Any

from .errors import InputError, refuse

PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
LARGEST = 10**15  # of any count or capacity: beyond it a typing error is likelier than a wish
_WHOLE = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*"
_QUANTITY = re.compile(rf"\s*([+-]?(?:{_WHOLE})(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{{1,3}})?)\s*([A-Za-z/]*)\s*")


def parse_bytes(text: str | int, name: str = "size") -> int:
    """Bytes of a capacity: `192KB` = `192KiB` = 196,608; a bare number is bytes.

    Raises InputError for bits, unknown units, fractions of a byte, and sizes outside 1 .. 10**15.
    """
    number, unit = _split(text, name, "a size like 192KB")
    prefix = unit[:1].upper() if unit[:1].upper() in PREFIXES else ""
    if "b" in unit:
        raise InputError(f"{name}={text}: lower-case b means bits; write bytes, like {number}{prefix}B")
    bare = unit.upper().removesuffix("B").removesuffix("I")
    if bare not in PREFIXES or unit.upper() in ("I", "IB"):
        raise InputError(f"{name}={text}: {unit!r} is no unit of capacity; use B, KB, MB or GB (1024-based)")
    return whole(number, 1024 ** PREFIXES[bare], text, name, "a whole number of bytes")


def parse_count(text: str | int, name: str = "count") -> int:
    """A count such as a sequence length: `8192`, or `8K` (1024-based, as lengths are)."""
    number, unit = _split(text, name, "a positive integer like 8192")
    if unit.upper() not in PREFIXES:
        raise InputError(f"{name}={text}: {unit!r} is no multiplier; use K, M or G (1024-based) or none")
    return whole(number, 1024 ** PREFIXES[unit.upper()], text, name, "an integer")


RATES = {  # ending of a field's name: its units, an example
    "_bytes_per_s": (r"B/s", "1555GB/s"),
    "_flop_per_s": (r"FLOPS|FLOP/s", "312TFLOP/s"),
    "_transfers_per_s": (r"T/s", "2.43GT/s"),
    "_hz": (r"Hz", "1.41GHz"),
}
SLOWEST, FASTEST = 1.0, 1e24


def parse_rate(text: str | int | float, name: str) -> float:
    """A rate per second in base units (1000-based), or a bare number; the field's name says which unit it has."""
    units, example = next((rate for ending, rate in RATES.items() if name.endswith(ending)), (r"/s", "1G/s"))
    number, unit = _split(text, name, f"a rate like {example}")
    prefix = re.fullmatch(rf"([KMGTPkmgtp]?)(?:{units})?", unit)
    if not prefix:
        raise InputError(f"{name}={text}: {unit!r} is not its unit; write it like {example} (1000-based)")
    rate = float(number) * 1000.0 ** PREFIXES[prefix[1].upper()]
    if not SLOWEST <= rate <= FASTEST:
        raise refuse(name, text, "a rate is 1 to 1e+24 per second", "1" if rate < SLOWEST else "1e+24")
    return rate


def whole(number: str, factor: int, text: object, name: str, what: str) -> int:
    """`number * factor` as an exact int between 1 and LARGEST."""
    exact: Any = int(number) * factor if number.isdigit() else _decimal(number) * factor
    if exact < 1:
        raise refuse(name, text, "must be at least 1", 1)
    if exact > LARGEST:
        raise refuse(name, text, "at most 10^15", LARGEST)
    if exact != int(exact):
        raise refuse(name, text, f"must be {what}", int(exact + _decimal("0.5")))
    return int(exact)


def _decimal(number: str) -> Any:
    from decimal import Decimal

    return Decimal(number)


def _split(text: str | int | float, name: str, example: str) -> tuple[str, str]:
    match = _QUANTITY.fullmatch(str(text))
    if not match:
        raise InputError(f"{name}={text!s:.60}: not a number; write {example}")
    return match[1].replace(",", "").replace("_", ""), match[2]


def show_capacity(size: int) -> str:
    """`192 KiB (196,608 B)`: what a capacity was understood as."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size >= 1024**power:
            return f"{size / 1024**power:.6g} {unit} ({size:,} B)"
    return f"{size:,} B"


def show_bytes(size: int) -> str:
    """Traffic for people, 1000-based like the papers' GB: `270.5 MB`."""
    return show_scaled(size, "B")


def show_scaled(value: float, unit: str) -> str:
    """Four significant digits and a 1000-based prefix."""
    if value < 0:
        return f"-{show_scaled(-value, unit)}"
    for prefix, power in (("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)):
        if value >= 10**power:
            scaled = value / 10**power
            return f"{scaled:.3e} {prefix}{unit}" if scaled >= 1e6 else f"{scaled:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def show_time(seconds: float) -> str:
    """`1.234 ms`."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"
