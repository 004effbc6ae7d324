"""Number formats: sizes, names, and that the NumPy formats round as their standards say."""

import sys

import numpy as np
import pytest

from ioaware import dtypes
from ioaware.errors import InputError, MissingExtra

# (bits of mantissa that are stored, greatest finite number), from IEEE 754, bfloat16 and the OCP 8-bit formats.
STANDARD = {
    "fp64": (52, 2.0**1023 * (2 - 2.0**-52)),
    "fp32": (23, 2.0**127 * (2 - 2.0**-23)),
    "fp16": (10, 65504.0),
    "bf16": (7, 2.0**127 * (2 - 2.0**-7)),
    "fp8_e4m3": (3, 448.0),
    "fp8_e5m2": (2, 57344.0),
}


def test_the_table_of_formats_is_the_table_of_standards():
    assert set(dtypes.FLOATS) == {*STANDARD, "tf32"}
    assert set(dtypes.ITEMSIZE) == {*STANDARD, "tf32", "uint8", "int32"}


@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_itemsize_is_what_numpy_stores(name):
    assert dtypes.numpy_dtype(name).itemsize == dtypes.ITEMSIZE[name]


@pytest.mark.parametrize(("name", "standard"), STANDARD.items())
def test_a_format_resolves_and_spans_what_its_standard_says(name, standard):
    mantissa, greatest = standard
    scalar = dtypes.numpy_dtype(name).type
    assert float(scalar(1 + 2.0**-mantissa)) == 1 + 2.0**-mantissa
    assert float(scalar(1 + 2.0 ** -(mantissa + 1))) == 1.0  # half way: to even
    assert float(scalar(greatest)) == greatest


def test_tf32_is_stored_as_fp32():
    assert dtypes.numpy_dtype("tf32") == np.float32


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("fp16", "fp16"),
        ("half", "fp16"),
        ("float16", "fp16"),
        ("FP16", "fp16"),
        ("BFloat16", "bf16"),
        ("float32", "fp32"),
        ("TF32", "tf32"),
        ("float64", "fp64"),
        ("fp8", "fp8_e4m3"),
        ("fp8_e5m2", "fp8_e5m2"),
    ],
)
def test_names(typed, meant):
    assert dtypes.canonical(typed) == meant


@pytest.mark.parametrize(
    ("typed", "nearest"), [("fp17", "fp16"), ("tf23", "tf32"), ("bf61", "bf16"), ("fp8_e4m", "fp8_e4m3")]
)
def test_an_unknown_name_gets_the_nearest_one(typed, nearest):
    with pytest.raises(InputError) as error:
        dtypes.canonical(typed, "score_dtype")
    message = str(error.value)
    assert message.startswith(f"score_dtype '{typed}' is unknown")
    assert f"the nearest is '{nearest}'" in message
    assert all(name in message for name in STANDARD)


def test_bytes_are_no_arithmetic():
    with pytest.raises(InputError, match="uint8"):
        dtypes.canonical("uint8")


@pytest.mark.parametrize("name", ["bf16", "fp8_e4m3", "fp8_e5m2"])
def test_without_ml_dtypes_the_message_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtra, match=rf"executing in {name} needs ml_dtypes: pip install 'ioaware\[lowp\]'"):
        dtypes.numpy_dtype(name)


@pytest.mark.parametrize("name", ["fp64", "fp32", "tf32", "fp16", "uint8"])
def test_plain_formats_need_numpy_only(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert isinstance(dtypes.numpy_dtype(name), np.dtype)
