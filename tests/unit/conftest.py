"""A machine with a GPU, for the tests of the engine `cuda`."""

from __future__ import annotations

import sys

import pytest

from tests.unit.fake_cupy import FakeCupy


@pytest.fixture
def gpu(monkeypatch):
    """A machine with CuPy and a GPU."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake
