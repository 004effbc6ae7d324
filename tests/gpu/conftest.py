"""Where there is no CuPy or no GPU, every test here is skipped, and the reason is shown."""

from __future__ import annotations

import pytest

from ioaware.errors import Skipped
from ioaware_kernels.cuda_engine import CudaEngine


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """CuPy, where it finds a GPU."""
    try:
        return CudaEngine().cupy
    except Skipped as e:
        pytest.skip(str(e))
