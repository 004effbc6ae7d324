"""How a KV cache stores keys and values narrowly: integers or fp8 with scales, and what comes back from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import unknown

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BITS = {"fp8_e4m3": 8, "fp8_e5m2": 8, "int8": 8, "int4": 4}


def stored(name: str) -> str:
    """The one name of a format that caches are stored in; raises InputError with the nearest name."""
    key = {"fp8": "fp8_e4m3"}.get(str(name).lower(), str(name).lower())
    if key not in BITS:
        raise unknown("kv_dtype", name, BITS, f"known: {', '.join(BITS)}")
    return key


def quantise(x: Array, kv_dtype: str, kv_scales: str) -> tuple[Array, Array]:
    """(what is stored, as float64 numbers of the narrow format; fp32 scales): x of (kv_heads, rows, columns)."""
    import numpy as np

    from .precision.scales import PER_HEAD, PER_TENSOR, PER_TOKEN, quantised

    share = {"tensor": PER_TENSOR, "head": PER_HEAD, "token": PER_TOKEN}[kv_scales]
    found = quantised(np.asarray(x, np.float64), kv_dtype, share)
    return found.codes, found.scale


def restored(x: Array, kv_dtype: str, kv_scales: str) -> Array:
    """What attention sees of `x` after it was stored, in float64."""
    narrow, scale = quantise(x, kv_dtype, kv_scales)
    out: Array = narrow * scale
    return out
