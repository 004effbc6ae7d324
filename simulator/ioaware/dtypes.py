"""Number formats by name: how many bytes an element moves. Counting needs no NumPy; `numpy_dtype` is for `execute`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import MissingExtra, unknown

if TYPE_CHECKING:
    import numpy as np

ITEMSIZE = {
    "fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "uint8": 1, "int32": 4,
}  # fmt: skip
FLOATS = tuple(name for name in ITEMSIZE if "int" not in name)
ALIASES = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "fp8": "fp8_e4m3",
}  # fmt: skip


def canonical(name: str, field: str = "dtype") -> str:
    """The one name of a number format; raises InputError with the nearest name."""
    key = ALIASES.get(str(name).lower(), str(name).lower())
    if key not in FLOATS:
        raise unknown(field, name, (*FLOATS, *ALIASES), f"known: {', '.join(FLOATS)}")
    return key


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The NumPy dtype that stores a number format; bf16 and fp8 need ml_dtypes (extra `lowp`).

    tf32 is stored as fp32: only matrix units round to it.
    """
    import numpy as np

    plain = {
        "fp64": np.float64, "fp32": np.float32, "tf32": np.float32, "fp16": np.float16, "uint8": np.uint8,
        "int32": np.int32,
    }  # fmt: skip
    if name in plain:
        return np.dtype(plain[name])
    try:
        import ml_dtypes
    except ImportError:
        raise MissingExtra(f"executing in {name}", "ml_dtypes", "lowp") from None
    narrow = {"bf16": ml_dtypes.bfloat16, "fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2}
    dtype: np.dtype[np.generic] = np.dtype(narrow[name])
    return dtype
