"""A second machine for program texts: it runs the Python function itself, loop by loop, on NumPy arrays.

Nothing is recorded here, so it checks the recorder and all readers by a route that shares nothing with them. A tensor
is one array per sequence, the element mask is the definition, and bytes are counted where a piece is touched.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from ioaware.dropout import keep_mask

HEADS = ("kv_heads", "group")
AXES = {
    **dict.fromkeys(("Q", "dQ"), (*HEADS, "q_len", "head_dim")),
    **dict.fromkeys(("O", "dO"), (*HEADS, "q_len", "value_dim")),
    **dict.fromkeys(("K", "dK"), ("kv_heads", "kv_len", "head_dim")),
    **dict.fromkeys(("V", "dV"), ("kv_heads", "kv_len", "value_dim")),
    **dict.fromkeys(("L", "l", "m"), (*HEADS, "q_len", "one")),
    **dict.fromkeys(("P", "P_dropped", "keep"), (*HEADS, "q_len", "kv_len")),
    "padding": ("kv_len", "one"),
    **dict.fromkeys(("slopes", "sink"), (*HEADS, "one", "one")),
    "bias": (*HEADS, "q_len", "kv_len"),
}
ROLES = {
    **dict.fromkeys(("L", "l", "m", "slopes", "sink"), "stat"),
    **dict.fromkeys(("P", "P_dropped"), "score"),
    "keep": "byte",
}


class Tile:
    """Rows start .. stop of an axis (or one position of it), and the number of the tile."""

    def __init__(self, start, stop, number, walk):
        self.start, self.stop, self.number, self.walk = start, stop, (number,), walk

    @property
    def rows(self):
        return slice(self.start, self.stop) if isinstance(self.walk, tuple) else self.start


class Walk(NamedTuple):
    """An axis, or a tile of it again, in tiles of `step` rows, which may depend on the sequence."""

    span: object
    step: object

    def rows(self, sequence):
        return self.step(sequence) if callable(self.step) else self.step


class Tensor:
    """One array per sequence; `T[h, g, i]` is a view of the current one."""

    def __init__(self, machine, name, role, arrays):
        self.machine, self.name, self.role, self.arrays = machine, name, role, arrays

    def __getitem__(self, where):
        view = self.arrays[self.machine.sequence]
        return self, view[tuple(map(position, where if isinstance(where, tuple) else (where,)))]


def position(where):
    if isinstance(where, Tile):
        return where.rows
    return where[0] if isinstance(where, tuple) else where


class Value:
    """An array with the language's arithmetic: -inf - x = -inf, 0 / 0 = 0."""

    def __init__(self, machine, a):
        self.program, self.a = machine, a

    @property
    def T(self):
        return Value(self.program, self.a.T)

    def columns(self, axis):
        return Value(self.program, self.a[:, : self.program.length(axis, 0)])

    def __add__(self, other):
        return self.program.map("add", self, other)

    def __sub__(self, other):
        return self.program.map("sub", self, other)

    def __mul__(self, other):
        return self.program.map("mul", self, other)

    def __truediv__(self, other):
        return self.program.map("div", self, other)

    def __matmul__(self, other):
        return Value(self.program, self.a @ other.a)

    __radd__, __rmul__ = __add__, __mul__

    def __iadd__(self, other):
        self.a[...] = (self + other).a
        return self

    def __imul__(self, other):
        self.a[...] = (self * other).a
        return self

    def __setitem__(self, where, other):
        self.a[where] = other.a


def subtract(a, b):
    return np.where(np.isneginf(a), a, np.subtract(a, b))


def divide(a, b):
    return np.where((a == 0) & (b == 0), 0.0, np.divide(a, b))


ARITHMETIC = {
    "add": np.add, "sub": subtract, "mul": np.multiply, "div": divide,
    "exp": np.exp, "log": np.log, "maximum": np.maximum, "rowmax": np.max, "rowsum": np.sum,
    "lazy_maximum": lambda m, new: np.where(new > m + 8 * np.log(2), new, m),
}  # fmt: skip


class Machine:
    """The `p` of a text."""

    batch, kv_heads, group, q, kv = "batch", *HEADS, "q_len", "kv_len"
    head_dim, value_dim, one = "head_dim", "value_dim", "one"

    def __init__(self, problem, tiles, inputs):
        self.problem, self.sequence, self.moved = problem, 0, Counter()
        self.inputs, self.extra, self.frames, self.read_once = inputs, {}, [], {}
        self.on_chip, self.turning = {}, False  # the last piece of each tensor that a back-and-forth loop has loaded
        self.masked, self.scale = problem.features.masked, 1 / np.sqrt(problem.head_dim)
        self.modified = self.masked or problem.softcap or problem.alibi or problem.bias
        self.q_tiles, self.kv_tiles, self.parts = Walk("q_len", tiles.q), Walk("kv_len", tiles.kv), tiles.splits
        self.sees = [self._mask(q_len, kv_len) for q_len, kv_len in problem.sequences]
        self.starts = np.cumsum([(0, 0), *problem.sequences], axis=0)

    def _mask(self, q_len, kv_len):
        band, gap = self.problem.band, np.subtract.outer(-np.arange(q_len), -np.arange(kv_len)) - (kv_len - q_len)
        above = True if band.left is None else gap >= -band.left
        return above & (True if band.right is None else gap <= band.right) & np.ones(gap.shape, bool)

    def length(self, axis, sequence):
        """How long an axis is; an axis of `one_per` has a slot per tile."""
        if isinstance(axis, tuple):
            return -(-self.length(axis[0], sequence) // axis.rows(sequence))
        p = self.problem
        lengths = dict(zip(("q_len", "kv_len"), p.sequences[sequence], strict=True))
        sizes = {"batch": len(p.sequences), "kv_heads": p.kv_heads, "group": p.group, "one": 1}
        return {**lengths, **sizes, "head_dim": p.head_dim, "value_dim": p.value_dim}[axis]

    # Tensors

    def tensor(self, name, axes, role, packed=None):
        """A tensor; without data, of elements that were never stored."""
        sequences = range(len(self.problem.sequences))
        if packed is None:
            arrays = [np.full([self.length(axis, s) for axis in axes], np.nan) for s in sequences]
        else:
            arrays = [self._part(axes, packed, s).astype(float) for s in sequences]
        return Tensor(self, name, role, arrays)

    def _part(self, axes, packed, s):
        """The rows of one sequence: of packed queries or keys, but S and P have keys of their own."""
        (q, kv), (q_end, kv_end) = self.starts[s], self.starts[s + 1]
        own = slice(0, kv_end - kv) if "q_len" in axes else slice(kv, kv_end)
        return packed[tuple({"q_len": slice(q, q_end), "kv_len": own}.get(axis, slice(None)) for axis in axes)]

    def scratch(self, label, *axes, dtype="accum"):
        return self.tensor(label, axes, dtype)

    def load(self, *pieces):
        out = [self._move("read", piece) for piece in pieces]
        return out[0] if len(out) == 1 else out

    def store(self, piece, value):
        self._move("write", piece)
        assert piece[1].shape == value.a.shape
        piece[1][...] = value.a

    def add(self, piece, value):
        self._move("add", piece)
        piece[1][...] += value.a

    def _move(self, kind, piece):
        tensor, view = piece
        if self.turning:
            where = view.__array_interface__["data"][0], view.shape
            if self.on_chip.get(tensor.name) == where:
                return Value(self, view.copy())
            self.on_chip[tensor.name] = where
        self.moved[tensor.name, kind] += view.size * self.problem.itemsize(tensor.role)
        return Value(self, view.copy())

    # On chip

    def full(self, shape, x):
        extents = [s.stop - s.start if isinstance(s, Tile) else self._extent(s) for s in shape]
        return Value(self, np.full(extents, float(x)))

    def _extent(self, axis):
        return axis if isinstance(axis, int) else self.length(axis, self.sequence)

    def zeros(self, *shape):
        return self.full(shape, 0.0)

    def map(self, kind, *args):
        return Value(self, ARITHMETIC[kind](*(x.a if isinstance(x, Value) else x for x in args)))

    def rows(self, kind, x):
        start = {"initial": -np.inf} if kind == "rowmax" else {}
        return Value(self, ARITHMETIC[kind](x.a, axis=-1, keepdims=True, **start))

    def mask(self, s, i, j):
        return Value(self, np.where(self.sees[self.sequence][i.rows, position(j)], s.a, -np.inf))

    def once(self, name, *where):
        """A piece of an input, read where its last index becomes known, and kept while that place lasts."""
        place = next(frame for frame in self.frames if set(where) <= set(frame))
        key = name, id(place)
        if key not in self.read_once or self.read_once[key][0] is not place:
            if name not in self.extra:
                self.extra[name] = self.tensor(name, AXES[name], ROLES.get(name, "io"), self.inputs[name])
            self.read_once[key] = place, self.load(self.extra[name][where])
        return self.read_once[key][1]

    def score_mod(self, x, h, g, i, j):
        p = self.problem
        if p.softcap:
            x = Value(self, p.softcap * np.tanh(x.a / p.softcap))
        if p.alibi:
            q_len, kv_len = p.sequences[self.sequence]
            apart = np.abs(np.add.outer(np.arange(q_len) + kv_len - q_len, -np.arange(kv_len)))
            x = x - self.once("slopes", h, g) * apart[i.rows, j.rows]
        if p.bias:
            x = x + self.once("bias", h, g, i, j)
        if p.padding:
            x = x + self.once("padding", j).T
        return self.mask(x, i, j)

    def score_grad(self, ds, x):
        c = self.problem.softcap
        return Value(self, ds.a / np.cosh(x.a / c) ** 2) if c else ds

    def row_state(self, h, g, i):
        if not self.problem.sink:
            return self.full((i, 1), -np.inf), self.zeros(i, 1)
        return self.zeros(i, 1) + self.once("sink", h, g), self.full((i, 1), 1)

    @property
    def splits(self):
        return Walk("kv_len", self.split_rows)

    def split_rows(self, sequence):
        """Whole key tiles, as many to a split as to the others."""
        tiles = -(-self.length("kv_len", sequence) // self.kv_tiles.step)
        return -(-tiles // self.parts) * self.kv_tiles.step

    def cached(self, *pieces):
        return self.load(*pieces)

    def keep(self, h, g, i, j):
        q, kv = (np.arange(*self.starts[[self.sequence, self.sequence + 1], side]) for side in (0, 1))
        head = h.start * self.problem.group + g.start
        return Value(self, keep_mask(self.problem, head, q, kv)[i.rows, position(j)])

    def kept(self, x, keep):
        return x * keep / (1 - self.problem.dropout)

    def drop(self, x, h, g, i, j):
        return self.kept(x, self.keep(h, g, i, j)) if self.problem.dropout else x

    # Loops

    def tiles(self, span, step):
        return Walk(span, step)

    def one_per(self, tiles):
        return tiles

    def iterations(self, walk):
        if not isinstance(walk, tuple):
            for n in range(self.length(walk, 0)):
                self.sequence = n if walk == "batch" else self.sequence
                yield Tile(n, n + 1, n, walk)
            return
        span, step = walk.span, walk.rows(self.sequence)
        start, stop = (span.start, span.stop) if isinstance(span, Tile) else (0, self.length(span, self.sequence))
        for n, first in enumerate(range(start, stop, step)):
            yield Tile(first, min(first + step, stop), n, walk)

    def loop(self, *walks):
        for tiles in self.nest(*walks):
            known = self.frames[-1] if self.frames else ()
            self.frames.append([*known, *(tiles if isinstance(tiles, tuple) else (tiles,))])
            yield tiles
            self.frames.pop()

    def nest(self, *walks):
        if len(walks) == 1:
            yield from self.iterations(walks[0])
            return
        for outer in self.iterations(walks[0]):
            for inner in self.nest(*walks[1:]):
                yield (outer, *inner) if isinstance(inner, tuple) else (outer, inner)

    def kernel(self, _, *walks):
        return self.loop(*walks)

    def visible(self, tiles, other):
        yield from self.framed(self.seen_tiles(tiles, other))

    def framed(self, tiles):
        for tile in tiles:
            self.frames.append([*self.frames[-1], tile])
            yield tile
            self.frames.pop()

    def seen_tiles(self, tiles, other):
        for tile in self.iterations(tiles):
            q, kv = (tile, other) if tiles[0] == "q_len" else (other, tile)
            if self.sees[self.sequence][q.rows, kv.rows].any():
                yield tile

    def serpentine(self, tiles, other):
        (number,) = other.number
        if number == 0:
            self.on_chip = {}
        forwards = list(self.seen_tiles(tiles, other))
        for tile in self.framed(reversed(forwards) if number % 2 else forwards):
            self.turning = True
            yield tile
            self.turning = False

    def seen(self, tiles, i):
        spans = [(tile.start, tile.stop) for tile in self.seen_tiles(tiles, i)]
        return (slice(spans[0][0], spans[-1][1]) if spans else slice(0, 0),)


FEATURE = {"keep": "dropout", "P_dropped": "dropout"}  # these tensors exist only with it
FORWARD, BACKWARD = ("O", "L", "l", "m", "P", "P_dropped", "keep"), ("dQ", "dK", "dV")


def run(text, problem, tiles, inputs):
    """(outputs, one array per sequence, NaN where nothing was stored; bytes by tensor and kind) of a text."""
    machine = Machine(problem, tiles, inputs)
    names = text.__code__.co_varnames[1 : text.__code__.co_argcount]
    outputs, tensors = BACKWARD if "dO" in names else FORWARD, {}
    for name in names:
        if getattr(problem.features, FEATURE.get(name, ""), True):
            data = None if name in outputs else inputs[name]
            tensors[name] = machine.tensor(name, AXES[name], ROLES.get(name, "io"), data)
    with np.errstate(all="ignore"):
        text(machine, *map(tensors.get, names))
    stored = {name: tensor.arrays for name, tensor in tensors.items() if name in outputs}
    return stored, {key: n for key, n in machine.moved.items() if n}
