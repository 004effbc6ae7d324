"""Whether there is Coq, and the mark of tests that need it: they are skipped visibly, with the reason."""

from __future__ import annotations

import pytest

from ioaware.errors import Skipped
from ioaware_proofs import coq


def missing():
    """Why there is no Coq; empty if there is."""
    try:
        coq.require("coqc")
    except Skipped as e:
        return str(e)
    return ""


MISSING = missing()
needs_coq = pytest.mark.skipif(bool(MISSING), reason=MISSING)
