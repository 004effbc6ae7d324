"""Masks as the command line writes them: KIND, KIND:NUMBERS, and +BAND behind what a band may cut.

full   causal   causal-top-left   window:LEFT,RIGHT   sinks:SINKS,WINDOW   prefix:KEYS   chunks:LENGTH
longformer:WINDOW,TOKENS   fixed:STRIDE,SUMMARY   strided:BLOCK,STRIDE
documents:LENGTH,...   documents:@FILE   blocks:BLOCK,FILE   bigbird:BLOCK   and any of these three with +causal

`str(mask)` is such a text, except for many documents, for blocks and for functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, shown, unknown
from ..units import parse_count
from .band import CAUSAL, FULL, Band, window
from .base import Mask

WORDS = {"full": FULL, "causal": CAUSAL, "causal-top-left": Band(right=0, top_left=True)}
NUMBERS = {  # kind: what its numbers are, an example
    "sinks": ("SINKS,WINDOW", "sinks:4,1024"),
    "prefix": ("KEYS", "prefix:256"),
    "chunks": ("LENGTH", "chunks:8192"),
    "longformer": ("WINDOW,TOKENS", "longformer:256,1"),
    "fixed": ("STRIDE,SUMMARY", "fixed:128,32"),
    "strided": ("BLOCK,STRIDE", "strided:32,4"),
    "bigbird": ("BLOCK", "bigbird:64"),
}
KNOWN = (*WORDS, "window", "window-top-left", *NUMBERS, "documents", "blocks")


def parse_mask(text: str, option: str = "--mask") -> Mask:
    """The mask that a text names. Raises InputError: what is wrong, and what to write."""
    kind, colon, rest = text.partition(":")
    if kind not in KNOWN:
        raise unknown(option, kind, KNOWN, f"known: {', '.join(KNOWN)}")
    rest, cut = _cut(rest)
    if not colon and kind in WORDS:
        mask: Mask = WORDS[kind]
    elif kind in WORDS or not rest:
        raise InputError(f"{option}={shown(text)}: write it like {_example(kind)}")
    elif kind.startswith("window"):
        mask = parse_window(rest, option)
        mask = replace(mask, top_left=kind != "window")
    else:
        mask = _READ.get(kind, _numbered)(kind, rest, option)
    if cut == "causal":
        return mask.causal()
    if cut and not hasattr(mask, "band"):
        raise InputError(f"{option}={shown(text)}: only documents, blocks and bigbird are cut by a band; drop +{cut}")
    return replace(mask, band=parse_mask(cut, option)) if cut else mask  # type: ignore[call-arg]


def parse_window(text: str, option: str = "--window") -> Band:
    """LEFT or LEFT,RIGHT: flash-attention's window_size, so many keys beside the query's own; -1 is all of a side.

    RIGHT is 0 where it is not given: a causal window. `sliding_window=w` of transformers, w keys with the own one, is
    w - 1 here. Raises InputError.
    """
    sides = text.split(",")
    if len(sides) > 2:
        raise InputError(f"{option}={shown(text)}: a window has two sides; write LEFT,RIGHT, like 4095,0")
    return window(*(int(side) if side.strip() in ("-1", "0") else parse_count(side, option) for side in sides))


def _cut(rest: str) -> tuple[str, str]:
    """What stands before and behind the last + that a band follows."""
    head, _, tail = rest.rpartition("+")
    return (head, tail) if tail == "causal" or tail.startswith("window") else (rest, "")


def _example(kind: str) -> str:
    more = {"window": "window:4095,0", "window-top-left": "window-top-left:4095,0",
            "documents": "documents:1000,2000 or documents:@lengths.txt", "blocks": "blocks:64,layout.npy"}  # fmt: skip
    return NUMBERS[kind][1] if kind in NUMBERS else more.get(kind, kind)


def _numbered(kind: str, rest: str, option: str) -> Mask:
    from . import patterns, sparse

    kinds: dict[str, Callable[..., Mask]] = {
        "sinks": patterns.Sinks, "prefix": patterns.Prefix, "chunks": patterns.Chunks, "fixed": patterns.Fixed,
        "longformer": patterns.Longformer, "strided": sparse.Strided, "bigbird": sparse.BigBird,
    }  # fmt: skip
    numbers, (what, example) = rest.split(","), NUMBERS[kind]
    if len(numbers) != len(what.split(",")):
        raise InputError(f"{option}={kind}:{shown(rest)}: {kind} takes {what}; write it like {example}")
    return kinds[kind](*(parse_count(number, option) for number in numbers))


def _documents(kind: str, rest: str, option: str) -> Mask:
    from .documents import Documents

    words = _read(rest[1:], option, Path.read_text).replace(",", " ").split() if rest[0] == "@" else rest.split(",")
    return Documents(tuple(parse_count(word, option) for word in words))


def _blocks(kind: str, rest: str, option: str) -> Mask:
    from .blocks import Blocks

    size, comma, file = rest.partition(",")
    if not comma or not file:
        raise InputError(f"{option}={kind}:{shown(rest)}: blocks takes BLOCK,FILE; write it like {_example(kind)}")
    block = parse_count(size, option)
    return Blocks.of_matrix(_read(file, option, _matrix), block, block)


_READ = {"documents": _documents, "blocks": _blocks}


def _read(file: str, option: str, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(Path(file))
    except (OSError, ValueError) as e:
        raise InputError(f"{option}: {shown(file)} cannot be read ({getattr(e, 'strerror', None) or e})") from None


def _matrix(file: Path) -> Any:
    """A .npy file, or a text of lines of zeros and ones, with or without spaces and commas. Raises ValueError."""
    import numpy as np

    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False)
    lines = [line.replace(",", " ").split() for line in file.read_text(encoding="utf-8").splitlines()]
    rows = ["".join(words) for words in lines if words]
    if not rows or len(set(map(len, rows))) > 1 or set("".join(rows)) > {"0", "1"}:
        raise ValueError("not lines of zeros and ones, each as long as the first")
    return np.array([[int(digit) for digit in row] for row in rows])
