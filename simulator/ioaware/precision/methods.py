"""The table of all methods, by name. A file of other methods ends with a tuple of them, which joins METHODS here."""

from __future__ import annotations

from ..errors import unknown
from .approximate import APPROXIMATE
from .method import Method
from .precisions import PRECISIONS

METHODS = {method.name: method for method in (*PRECISIONS, *APPROXIMATE)}


def find_method(name: str) -> Method:
    """The method of that name. Raises InputError with the nearest name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, f"known: {', '.join(METHODS)}")
    return METHODS[name]
