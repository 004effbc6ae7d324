"""Print the page docs/claims.md: `python -m ioaware.claims > docs/claims.md`."""

from __future__ import annotations

import sys

from . import CLAIMS
from .page import page

if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(page([claim.judge() for claim in CLAIMS]))
