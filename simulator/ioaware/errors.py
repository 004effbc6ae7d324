"""What can go wrong, one class per remedy. Every message is one sentence: value, rule, nearest legal value."""

from __future__ import annotations

from collections.abc import Iterable


class IoawareError(Exception):
    """The base of every error raised on purpose; the command line prints its text and exits with `exit_code`."""

    exit_code = 2


class InputError(IoawareError, ValueError):
    """A value that breaks a rule: fix the value that the message names."""


class ProgramError(IoawareError):
    """A program that breaks a rule of the language: the message names the line and the way out."""


class NoClosedForm(ProgramError):
    """The program is fine, but its traffic has no closed form in this algebra: count by walking the loops."""


class VerificationError(IoawareError):
    """Something that must agree does not: exit code 1."""

    exit_code = 1


class Skipped(IoawareError):
    """Nothing is wrong, but this machine cannot do it: exit code 77, so that no one takes it for a pass."""

    exit_code = 77


class MissingExtra(IoawareError):
    """An optional dependency is not installed: the message holds the command that installs it."""

    def __init__(self, what: str, module: str, extra: str) -> None:
        super().__init__(f"{what} needs {module}: pip install 'ioaware[{extra}]'")


def refuse(name: str, value: object, rule: str, nearest: object) -> InputError:
    """The house's sentence: what was given, the rule, the nearest legal value."""
    return InputError(f"{name}={shown(value)}: {rule}; the nearest legal value is {shown(nearest)}")


def shown(value: object) -> str:
    """A value as the user typed it, cut where it would flood the terminal."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown(kind: str, name: object, known: Iterable[str], see: str) -> InputError:
    """An unknown name, its nearest neighbour and where all of them are listed."""
    nearest = closest(str(name), known)
    return InputError(f"{kind} {shown(name)!r} is unknown, the nearest is {nearest!r}; {see}")


def closest(name: str, known: Iterable[str]) -> str:
    """The known name nearest to `name` in spelling."""
    from difflib import SequenceMatcher

    return max(known, key=lambda k: SequenceMatcher(None, name.lower(), k.lower()).ratio())
