"""Attention on many devices: the schemes, one short file each; this table is the only list.

from ioaware.parallel import find
from ioaware.parallel.count import count
count(find("ring"), problem, devices=8).sent
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import unknown
from ..problem import AttentionProblem
from . import all_gather, ring, tensor, tree, ulysses
from .layout import LayoutRule, contiguous, over_heads, over_keys, striped, zigzag
from .machine import MOST_DEVICES


@dataclass(frozen=True)
class Scheme:
    """A way to compute attention on many devices: its texts, and what each device holds at the beginning."""

    name: str
    title: str
    paper: str
    home: LayoutRule
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    rows: Callable[[AttentionProblem], int]  # tokens that are shared out: no more devices than these
    heads: Callable[[AttentionProblem], int] = lambda problem: 0  # heads that are shared out: a multiple of the devices
    no_backward: str = ""


def _tokens(problem: AttentionProblem) -> int:
    return min(problem.sequences[0])


def _keys(problem: AttentionProblem) -> int:
    return problem.sequences[0][1]


def _anywhere(problem: AttentionProblem) -> int:
    del problem
    return MOST_DEVICES


def _heads(problem: AttentionProblem) -> int:
    return problem.heads


def _kv_heads(problem: AttentionProblem) -> int:
    return problem.kv_heads or 1


SCHEMES = (
    Scheme(
        "ring", "K and V travel a ring, tokens are dealt in runs", "Ring Attention, arXiv 2310.01889",
        contiguous, ring.ring, ring.ring_backward, _tokens,
    ),
    Scheme(
        "striped", "the same ring, every P-th token is one device's", "Striped Attention, arXiv 2311.09431",
        striped, ring.ring, ring.ring_backward, _tokens,
    ),
    Scheme(
        "zigzag", "the same ring, with a run from either end", "Llama 3, arXiv 2407.21783, section 3.3.2",
        zigzag, ring.ring, ring.ring_backward, _tokens,
    ),
    Scheme(
        "all_gather", "context parallelism: K and V are gathered", "Llama 3, arXiv 2407.21783, section 3.3.2",
        zigzag, all_gather.all_gather, all_gather.all_gather_backward, _tokens,
    ),
    Scheme(
        "ulysses", "all-to-all from runs of tokens to runs of heads and back", "DeepSpeed-Ulysses, arXiv 2309.14509",
        contiguous, ulysses.ulysses, ulysses.ulysses_backward, _tokens, _heads,
    ),
    Scheme(
        "tree", "the KV cache is shared out, softmax states are reduced", "Tree Attention, arXiv 2408.04093",
        over_keys, tree.tree, None, _keys,
        no_backward="is a decoding scheme: its paper has no backward pass, as nothing is learned while decoding",
    ),
    Scheme(
        "tensor", "tensor parallelism: heads are shared out", "Megatron-LM, arXiv 1909.08053",
        over_heads, tensor.tensor, tensor.tensor_backward, _anywhere, _kv_heads,
    ),
)  # fmt: skip


def find(name: str) -> Scheme:
    """The scheme of that name; raises InputError with the nearest name."""
    for scheme in SCHEMES:
        if scheme.name == name:
            return scheme
    raise unknown("scheme", name, [s.name for s in SCHEMES], f"known: {', '.join(s.name for s in SCHEMES)}")


def find_all(names: Iterable[str]) -> tuple[Scheme, ...]:
    """Several schemes, in the order given, each once; none named: all."""
    return tuple(find(name) for name in dict.fromkeys(names)) or SCHEMES
