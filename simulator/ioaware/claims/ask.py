"""What claims ask of the simulator."""

from __future__ import annotations

from typing import Any

from ..algorithms import find
from ..problem import AttentionProblem
from ..program.recorder import record
from ..readers.evaluate import TileSizes
from ..readers.footprint import footprint
from ..report import AlgorithmReport, Totals
from ..simulator import simulate

A100, A100_80, H100 = "a100-sxm-40gb", "a100-sxm-80gb", "h100-sxm"
GPT2: dict[str, Any] = {  # figure 2 of the FlashAttention paper
    "heads": 16, "batch": 64, "mask": "padding", "dropout": 0.1, "direction": "fwd+bwd",
}  # fmt: skip
GPT2_FLAGS = "--N 1024 --heads 16 --batch 64 --mask padding --dropout 0.1 --direction fwd+bwd"


def report(
    algorithm: str, n: int = 8192, *, device: str = A100, tiles: str = "best", sram: str | None = None, **shape: Any
) -> AlgorithmReport:
    """What `simulate` finds about one algorithm; `shape` are fields of the problem, the rest its defaults."""
    problem = AttentionProblem(q_len=n, **shape)
    return simulate(problem, device, [algorithm], tiles=tiles, sram=sram).algorithms[algorithm]


def run(algorithm: str, n: int = 8192, **choices: Any) -> Totals:
    """The totals of `report`."""
    return report(algorithm, n, **choices).totals


def issued(algorithm: str, n: int = 8192, **choices: Any) -> int:
    """Bytes that thread blocks read and write: the papers' HBM accesses."""
    return run(algorithm, n, **choices).levels["issued"].total_bytes


def dram(algorithm: str, n: int = 8192, **choices: Any) -> int:
    """Bytes behind the L2, first order."""
    return run(algorithm, n, **choices).levels["dram"].total_bytes


def tensors(algorithm: str, n: int = 8192, **shape: Any) -> dict[str, int]:
    """Bytes of every tensor that the passes of an algorithm keep in HBM."""
    problem = AttentionProblem(q_len=n, **shape)
    kept: dict[str, int] = {}
    for direction in problem.passes:
        program = record(find(algorithm).text(direction), problem.features)
        kept |= footprint(program, problem, TileSizes(*problem.longest()))
    return kept


OWN = ("Q", "K", "V", "O", "dO", "dQ", "dK", "dV")  # attention's inputs and outputs


def extra(algorithm: str, n: int = 8192, **shape: Any) -> dict[str, int]:
    """What an algorithm keeps besides attention's own inputs and outputs."""
    return {name: size for name, size in tensors(algorithm, n, **shape).items() if name not in OWN}
