"""TOML tables shipped with the package, one file per device or workload; a name or a path finds one.

Paths are plain text here: importing pathlib would cost every start of the command line 3 ms.
"""

from __future__ import annotations

import os
from typing import Any

from .errors import InputError

HERE = os.path.dirname(os.path.abspath(__file__))


def folder(name: str) -> str:
    """The package's folder of tables."""
    return os.path.join(HERE, name)


def names(where: str) -> list[str]:
    """The names of the tables in a folder."""
    return sorted(file.removesuffix(".toml") for file in os.listdir(where) if file.endswith(".toml"))


def mentioning(where: str, text: str) -> list[str]:
    """The names of the tables that hold a text: cheaper than parsing them all."""
    return [name for name in names(where) if text in _content(path_of(where, name))]


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def path_of(where: str, name: str) -> str:
    """The file of a built-in table; it may not exist."""
    return os.path.join(where, f"{name.lower()}.toml")


def file_name(path: str) -> str:
    """The last part of a path: what a message about a file's content needs."""
    return os.path.basename(path)


def read(path: str, kind: str) -> dict[str, Any]:
    """A parsed TOML file. Raises InputError: no such file, or not TOML."""
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as e:
        reason = (e.strerror or "cannot be read").lower()
        raise InputError(f"{kind} file {path!r}: {reason}; `ioaware list {kind}s` shows the built-in ones") from None
    except ValueError as e:  # TOMLDecodeError, UnicodeDecodeError, an integer of thousands of digits
        raise InputError(f"{kind} file {path!r} is not TOML: {e}") from None
