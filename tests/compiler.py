"""Which NVRTC there is, and the marks of tests that need one: they are skipped visibly, with the reason."""

from __future__ import annotations

import pytest

from ioaware.errors import MissingExtra
from ioaware_kernels import golden, nvrtc


def release():
    """(its version, why there is none): one of them is empty."""
    try:
        return nvrtc.release(), ""
    except MissingExtra as e:
        return "", str(e)


FOUND, MISSING = release()
needs_nvrtc = pytest.mark.skipif(bool(MISSING), reason=MISSING)
needs_pinned = pytest.mark.skipif(
    FOUND != golden.NVRTC,
    reason=MISSING or f"this needs NVRTC {golden.NVRTC}, whose every byte is known; here: {FOUND}",
)
