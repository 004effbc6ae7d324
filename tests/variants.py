"""Random variants of attention: every field of a problem at once, small, with tiles that are legal for its pages."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from ioaware.algorithms import ALGORITHMS
from ioaware.masks import CAUSAL
from ioaware.problem import AttentionProblem, Bias
from ioaware.program import record
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from tests.strategies import EXACT, tile_sizes
from tests.strategies_masks import KINDS, PATTERNS, masks

# What a text cannot do, by hand; all else it can. A text that is not here does everything.
REFUSED = {
    "naive": {"sink", "paged", "kv_scales"}, "naive_backward": {"softcap"},
    "eager": {"sink", "paged", "kv_scales"}, "eager_backward": {"softcap"},
    "safe_softmax": {"sink", "paged", "kv_scales"}, "fused_softmax_backward": {"softcap"},
    "online_softmax": {"paged", "kv_scales"},
    "memory_efficient": {"sink"}, "memory_efficient_backward": {"sink"},
}  # fmt: skip
SOFTMAX = {f.__name__: f for a in ALGORITHMS if a.softmax for f in (a.forward, a.unsplit, a.backward) if f}
LATENT = ("mla", "mla_unsplit")  # texts that find V in the columns of K
BACKWARD = tuple(name for name in SOFTMAX if "backward" in name)
ABLE = tuple(f for name, f in SOFTMAX.items() if name not in (*REFUSED, *LATENT, *BACKWARD))

texts = st.sampled_from(ABLE)
PAGES = (1, 2, 3, 4, 8, 16, 512)
FORMATS = ("int8", "int4", "fp8_e4m3", "fp8_e5m2")


class Variant(NamedTuple):
    """A problem in float64, so that values can be compared, and a schedule."""

    problem: AttentionProblem
    sizes: TileSizes


def legal(page_size: int | None):
    """Key tiles: whole numbers of pages, or parts of one."""
    if page_size is None:
        return tile_sizes
    return st.sampled_from([t for t in range(1, 41) if t % page_size == 0 or page_size % t == 0])


@st.composite
def shapes(draw, *, several: bool, kinds: tuple[str, ...]):
    """A mask and lengths that fit it: of one length, or a batch of several."""
    if not several or draw(st.booleans()):
        mask, q_len, kv_len = draw(masks(kinds=kinds, longest=16, most_packed=1))
        return {"mask": mask, "q_len": q_len, "kv_len": kv_len, "batch": draw(st.integers(1, 2))}
    pairs = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
    q_len, kv_len = zip(*pairs, strict=True)
    mask = draw(st.one_of(*(PATTERNS[kind] for kind in kinds if kind in PATTERNS)))
    return {"mask": mask, "q_len": q_len, "kv_len": kv_len}


@st.composite
def scores(draw, *, without, several: bool):
    """What is done to scores."""
    each = [Bias(heads, batch) for heads in (True, False) for batch in (True, False)]
    biases = [bias for bias in each if bias.batch or not several]  # several lengths share no matrix
    return {
        "softmax_scale": draw(st.sampled_from([None, 0.3, 1.5])),
        "softcap": draw(st.sampled_from([0.0, 1.5])) if "softcap" not in without else 0.0,
        "alibi": draw(st.booleans()),
        "bias": draw(st.one_of(st.none(), st.sampled_from(biases))),
        "sink": draw(st.booleans()) if "sink" not in without else False,
        "padding": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
    }


@st.composite
def caches(draw, *, without):
    """How keys and values are kept."""
    return {
        "page_size": draw(st.one_of(st.none(), st.sampled_from(PAGES))) if "paged" not in without else None,
        "kv_dtype": draw(st.one_of(st.none(), st.sampled_from(FORMATS))) if "kv_scales" not in without else None,
        "kv_scales": draw(st.sampled_from(["tensor", "head", "token"])),
        "shared_kv": draw(st.booleans()),
    }


@st.composite
def variants(draw, *, without=frozenset(), several=True, packed=True, cached=True, kinds=KINDS, **fixed):
    """Variants `without` some features and with fields `fixed`: of `several` lengths, `packed` and `cached`, or not."""
    kv_heads, group, head_dim = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    shape = draw(shapes(several=several, kinds=kinds))
    drawn = {
        **EXACT, **shape, "heads": kv_heads * group, "kv_heads": kv_heads, "head_dim": head_dim,
        **draw(scores(without=without, several=isinstance(shape["q_len"], tuple))),
        **(draw(caches(without=without)) if cached else {}),
        **fixed,
    }  # fmt: skip
    widest = drawn["head_dim"] if drawn.get("shared_kv") else 5
    problem = AttentionProblem(**{"value_dim": draw(st.integers(1, widest)), **drawn})
    if packed and problem.bias is None and draw(st.booleans()):
        problem = problem.packed()
    return Variant(problem, TileSizes(draw(tile_sizes), draw(legal(problem.page_size)), draw(st.integers(1, 4))))


@st.composite
def self_attention(draw):
    """What linear attention takes: each key has a query of its own, which sees the keys up to it."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    heads = {"heads": kv_heads * group, "kv_heads": kv_heads}
    dims = {"head_dim": draw(st.integers(1, 5)), "value_dim": draw(st.integers(1, 5))}
    return AttentionProblem(q_len=tuple(lengths), **heads, **dims, mask=CAUSAL, **EXACT)


def ran(text, problem, sizes, inputs):
    """What a text does with the inputs."""
    return execute(record(text, problem.features), problem, sizes, inputs)


def counted(text, problem, sizes):
    """The bytes of a text in closed form."""
    return count(record(text, problem.features), problem, sizes)
