"""Are the numbers of a claim in what its commands print?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .record import Judged, Number


def missing(judged: Judged, outputs: Sequence[str]) -> list[str]:
    """The names of the numbers that the claim's commands should have printed, and did not."""
    return [name for name, number in judged.shown.items() if not any(found(number, text) for text in outputs)]


def found(number: Number, text: str) -> bool:
    """Whether a text holds the number: as people read it, or in full."""
    forms = {str(number), number.plain, repr(number.value), f"{number.value:,}", f"{number.value:.6g}"}
    return any(re.search(rf"(?<![\w.,]){re.escape(form)}(?![\w]|[.,]\d)", text) for form in forms)
