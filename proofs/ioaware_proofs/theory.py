"""The Coq theories as people read them: what every file and every theorem says. No Coq is needed to read them.

The files keep to conventions (CONTRIBUTING.md, "Add a theorem"), which are checked on the way: a file opens with a
comment in plain words; the keyword Theorem is for statements that users see, Lemma for the rest; a Theorem stands at
the start of a line, directly below a comment (** in plain English, with `Used by: FILE (NAME).` where code rests on
it *); nothing is assumed or left unproved.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ioaware.errors import VerificationError, unknown

FOLDER = "proofs/theories"  # in the repository: what people are shown, wherever the files lie on this machine
TOKEN = re.compile(r'\(\*|\*\)|"[^"]*"')
NEEDS = re.compile(r"\bFrom\s+IOAware\s+Require\s+(?:Import\s|Export\s)?([\w\s]+)\.")
SENTENCE = re.compile(
    r"^[ \t]*(Theorem|Section|End|Variables?|Hypothes[ei]s|Context|Let)\b(.*?)\.(?=\s|$)", re.M | re.S
)
USE = re.compile(r"([\w./-]+)\s+\(([^()]+)\)[,;]?")
ASSUMED = ("Axiom", "Axioms", "Parameter", "Parameters", "Conjecture", "Conjectures")
BANNED = {
    **dict.fromkeys(("Admitted", "admit", "give_up"), "leaves a statement without a proof; prove it or take it out"),
    **dict.fromkeys(ASSUMED, "assumes without a proof; prove it, or make it a condition of the theorem"),
    **dict.fromkeys(("Corollary", "Proposition", "Fact", "Remark", "Goal"), "is not used; write Theorem or Lemma"),
}


class Use(NamedTuple):
    """Code that rests on a theorem."""

    file: str
    name: str


class Theorem(NamedTuple):
    """One statement for users."""

    name: str
    theory: str
    line: int
    english: str
    statement: str  # as it is in the file, behind what the sections around it declare
    used_by: tuple[Use, ...]

    @property
    def full_name(self) -> str:
        """Its name for Coq."""
        return f"{self.theory}.{self.name}"

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.theory}.v:{self.line}"


class Theory(NamedTuple):
    """One file of theorems."""

    name: str
    summary: str
    needs: tuple[str, ...]  # other theories
    theorems: tuple[Theorem, ...]

    @property
    def file(self) -> str:
        """Its path in the repository."""
        return f"{FOLDER}/{self.name}.v"

    @property
    def title(self) -> str:
        """The first sentence of its summary."""
        return re.split(r"(?<=\.)\s", " ".join(self.summary.split()))[0]


def root() -> Path:
    """The folder with theories/ and axioms.expected: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    return package if (package / "theories").is_dir() else package.parent


def load(folder: Path) -> tuple[Theory, ...]:
    """The theories in a folder, each behind those that it needs.

    Raises VerificationError: a file breaks a convention, two names are the same, or a needed file is missing.
    """
    found = {path.stem: read(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.v"))}
    seen: dict[str, str] = {}
    for theory in found.values():
        for name, place in [(theory.name, f"{theory.name}.v"), *((t.name, t.place) for t in theory.theorems)]:
            if name in seen:
                raise VerificationError(f"{place}: the name {name} is taken by {seen[name]}; choose another")
            seen[name] = place
    return closure(found, found)


def closure(theories: Mapping[str, Theory], names: Iterable[str]) -> tuple[Theory, ...]:
    """These theories and all that they need, each behind its needs. Raises VerificationError: missing, or a circle."""
    done: dict[str, Theory] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name not in theories or name in above:
            fault = "does not exist" if name not in theories else "needs this file itself"
            raise VerificationError(f"{above[-1]}.v: requires {name}, which {fault}")
        for need in theories[name].needs:
            add(need, (*above, name))
        done[name] = theories[name]

    for name in names:
        add(name, ())
    return tuple(done.values())


def find(theories: Sequence[Theory], name: str) -> Theory | Theorem:
    """A theorem, as NAME or THEORY.NAME, or a theory, as NAME or NAME.v. Raises InputError with the nearest name."""
    known: dict[str, Theory | Theorem] = {}
    for theory in theories:
        known |= {theory.name: theory, f"{theory.name}.v": theory}
        known |= {key: theorem for theorem in theory.theorems for key in (theorem.name, theorem.full_name)}
    if name not in known:
        raise unknown("theorem", name, known, "ioaware prove --list shows all")
    return known[name]


def paragraphs(summary: str) -> list[str]:
    """The paragraphs of a summary, a line each; formulas and lists, which are indented, stay as they are."""
    groups = groupby(summary.split("\n"), lambda line: line.startswith(" ") if line else None)
    return [("\n" if indented else " ").join(lines) for indented, lines in groups if indented is not None]


def as_dict(theory: Theory, axioms: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """For JSON. `axioms`: those of every theorem, by its full name."""
    theorems = [
        {
            "name": t.name, "line": t.line, "english": t.english, "statement": t.statement,
            "axioms": list(axioms[t.full_name]), "used_by": [use._asdict() for use in t.used_by],
        }
        for t in theory.theorems
    ]  # fmt: skip
    head = {"name": theory.name, "file": theory.file, "summary": theory.summary, "needs": list(theory.needs)}
    return {**head, "theorems": theorems}


# ------------------------------------------------------------------------------------------------ one file
def read(name: str, text: str) -> Theory:
    """The theory of a file's text. Raises VerificationError with file and line."""
    comments = dict(_comments(text))
    code = _blanked(text, comments)
    _check_words(name, text, code)
    end = comments.get(0)
    if end is None or not text.startswith("(**"):
        raise _broken(name, text, 0, "a file opens with a comment (** in plain words: what is proved, what is not *)")
    needs = tuple(dict.fromkeys(need for found in NEEDS.finditer(code) for need in found[1].split()))
    return Theory(name, _plain(text[:end]), needs, tuple(_theorems(name, text, code, comments)))


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """Where comments begin and end; they nest, and may hold strings, as Coq's lexer has it."""
    depth = start = 0
    for token in TOKEN.finditer(text):
        if token[0] == "(*":
            start = start if depth else token.start()
            depth += 1
        elif token[0] == "*)" and depth:
            depth -= 1
            if not depth:
                yield start, token.end()


def _blanked(text: str, comments: Mapping[int, int]) -> str:
    """The text with spaces for comments and strings: what Coq takes for code, every position as it was."""
    pieces, at = [], 0
    for start, end in comments.items():
        pieces += [text[at:start], re.sub(r"\S", " ", text[start:end])]
        at = end
    return re.sub(r'"[^"]*"', lambda s: re.sub(r"\S", " ", s[0]), "".join([*pieces, text[at:]]))


def _check_words(name: str, text: str, code: str) -> None:
    """No word that assumes something or hides a statement, and no Theorem inside a line."""
    for word in re.finditer(rf"\b(?:{'|'.join(BANNED)})\b", code):
        raise _broken(name, text, word.start(), f"{word[0]} {BANNED[word[0]]}")
    for word in re.finditer(r"^.*\S.*\bTheorem\b", code, re.M):
        raise _broken(name, text, word.start(), "Theorem stands at the start of its line, without attributes")


def _theorems(theory: str, text: str, code: str, comments: Mapping[int, int]) -> Iterator[Theorem]:
    above = {end: start for start, end in comments.items()}
    sections: list[tuple[str, list[str]]] = []
    for sentence in SENTENCE.finditer(code):
        word, rest, at = sentence[1], sentence[2].strip(), sentence.start(1)
        if word == "Section":
            sections.append((rest, []))
        elif word == "End":
            sections = sections[:-1] if sections and sections[-1][0] == rest else sections
        elif word != "Theorem":
            for _, declared in sections[-1:]:
                declared.append(_tidy(text, at, sentence.end()))
        else:
            name = re.split(r"\W", rest, maxsplit=1)[0]
            end = len(text[:at].rstrip())
            start = above.get(end, at)
            if not text.startswith("(**", start) or text[end:at].count("\n") != 1:
                raise _broken(
                    theory, text, at, f"Theorem {name} needs a comment (** in plain English *) right above it"
                )
            declared = [line for _, lines in sections for line in lines]
            english, uses = _doc(theory, text, start, end)
            statement = "\n".join([*declared, _tidy(text, at, sentence.end())])
            yield Theorem(name, theory, _line(text, at), english, statement, uses)


def _doc(theory: str, text: str, start: int, end: int) -> tuple[str, tuple[Use, ...]]:
    """The English of a comment, and what it is used by."""
    english, _, used = " ".join(_plain(text[start:end]).split()).partition("Used by:")
    if not english:
        raise _broken(theory, text, start, "the comment of a Theorem says in plain English what is proved")
    if used and re.sub(r"[\s.]", "", USE.sub("", used)):
        raise _broken(theory, text, start, "write what uses a theorem as `Used by: FILE (NAME), FILE (NAME).`")
    uses = [Use(file, name.strip()) for file, names in USE.findall(used) for name in names.split(",")]
    return english.strip(), tuple(uses)


def _plain(comment: str) -> str:
    """A comment's text, lines as they are."""
    first, newline, rest = comment.removeprefix("(**").removesuffix("*)").partition("\n")
    return f"{first.strip()}{newline}{textwrap.dedent(rest)}".strip()


def _tidy(text: str, start: int, end: int) -> str:
    """Lines of code, moved to the left margin."""
    indent = start - (text.rfind("\n", 0, start) + 1)
    return re.sub(rf"\n {{1,{indent}}}", "\n", text[start:end]) if indent else text[start:end]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _broken(theory: str, text: str, at: int, rule: str) -> VerificationError:
    return VerificationError(f"{theory}.v:{_line(text, at)}: {rule}")
