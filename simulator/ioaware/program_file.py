"""A program file of one's own: functions `f(p, Q, K, V, O, ...)`, a backward pass `f_backward`, helpers `_name`.

The file is Python and is run. Each program is executed on small ragged problems and held against float64 softmax
before its bytes are worth printing.
"""

from __future__ import annotations

import inspect
import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from .algorithms import Algorithm
from .errors import InputError, ProgramError, VerificationError
from .problem import AttentionProblem
from .program.attention import GRADIENTS
from .program.recorder import record
from .readers.evaluate import TileSizes

SMALL = {"q_len": 37, "kv_len": 41, "batch": 2, "head_dim": 5, "value_dim": 5}  # ragged for every tile below
EXACT = {"dtype": "fp64", "score_dtype": "fp64", "accum_dtype": "fp64"}
TILES = (TileSizes(16, 16), TileSizes(7, 11), TileSizes(48, 48))
TOLERANCE = 1e-9  # float64: a wrong update is off by far more


def load_programs(path: str) -> list[Algorithm]:
    """The algorithms of a Python file. Raises InputError where it holds none or does not run."""
    functions = {n: f for n, f in vars(_module(Path(path))).items() if n[0] != "_" and _is_program(f, path)}
    forwards = {n: f for n, f in functions.items() if not n.endswith("_backward")}
    if not forwards:
        raise InputError(f"program file {path!r}: no function f(p, Q, K, V, O) in it; docs/programs.md has an example")
    return [
        Algorithm(n, (f.__doc__ or "").strip().partition("\n")[0], f, functions.get(f"{n}_backward"))
        for n, f in forwards.items()
    ]


def check(algorithm: Algorithm, problem: AttentionProblem) -> None:
    """Run every pass on small problems with the same mask, dropout and heads. Raises VerificationError."""
    group = min(problem.group, 2)
    small = replace(problem, **SMALL, **EXACT, heads=group * 2, kv_heads=2)  # type: ignore[arg-type]
    with redirect_stdout(sys.stderr):
        for direction in problem.passes:
            for tiles in TILES:
                _check_pass(algorithm, direction, small, tiles)


def _check_pass(algorithm: Algorithm, direction: str, problem: AttentionProblem, tiles: TileSizes) -> None:
    import numpy as np

    from . import reference
    from .readers.execute import execute

    program = record(algorithm.text(direction), problem.features)
    wanted = ("O",) if direction == "fwd" else GRADIENTS
    missing = [name for name in wanted if name not in program.tensors]
    if missing:
        raise ProgramError(
            f"{program.name} has no parameter {missing[0]}: it computes {', '.join(wanted)} and stores it"
        )
    inputs = reference.random_inputs(problem)
    expected = reference.attention(problem, inputs)
    run = execute(program, problem, tiles, {**expected, **inputs})
    for name in wanted:
        error = float(np.abs(run.tensors[name] - expected[name]).max())
        if not error <= TOLERANCE:
            raise VerificationError(f"{algorithm.name}: {_difference(name, error)} with {_setting(problem, tiles)}")


def _difference(name: str, error: float) -> str:
    if error != error:  # NaN
        return f"{name} is not a number where exact softmax attention is one"
    return f"{name} differs from exact softmax attention by {error:.3g}, more than rounding, {TOLERANCE:g},"


def _setting(problem: AttentionProblem, tiles: TileSizes) -> str:
    extras = [" + key padding"] * problem.padding + [f", dropout {problem.dropout:g}"] * (problem.dropout > 0)
    return f"N_q={problem.q_len}, N_k={problem.kv_len}, tiles {tiles}, {problem.band} mask{''.join(extras)}, float64"


def _module(path: Path) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    if not os.path.isfile(path):  # a path may be too long for pathlib to ask
        raise InputError(f"program file {str(path)!r}: no such file; docs/programs.md has an example")
    spec = spec_from_file_location(f"ioaware_program_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"program file {str(path)!r}: not a Python file; it must end in .py")
    module = module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:  # anything that the user's file may raise
        raise InputError(f"program file {str(path)!r} does not run: {type(e).__name__}: {e}") from e
    return module


def _is_program(f: object, path: str) -> bool:
    if not inspect.isfunction(f) or Path(f.__code__.co_filename).name != Path(path).name:
        return False
    return next(iter(inspect.signature(f).parameters), "") == "p"
