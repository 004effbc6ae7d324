"""Every metric of counters/metrics.toml exists on its chip, and is in the unit that its quantity's name says. No GPU.

python .ci/metrics.py [FOLDER]    FOLDER holds CUPTI (pip install --target); without it pip fetches the one below

The wheel has the evaluator that Nsight Compute asks. Its parameter structures are those of the wheel's nvperf_host.h
and nvperf_cuda_host.h: each begins with its own size, up to the end of the last field, and a null pointer.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int8, c_size_t, c_uint8, c_uint16, c_uint32, c_void_p, pointer
from pathlib import Path

from ioaware_kernels.counters.metrics import chips, metrics_of

CUPTI = "nvidia-cuda-cupti==13.5.25"
LIBRARY = "nvidia/*/lib/libnvperf_host.so"
UNITS = {"ns": "nanoseconds"}  # what the evaluator says, where a quantity's name has it shorter
MUTANTS = ("smsp__sass_data_bytes_mem_global_op_load.sum", "dram__bytes_read", "dram__bytes_read.total")


class Request(ctypes.Structure):
    """NVPW_MetricEvalRequest."""

    _fields_ = [("metric", c_size_t), ("type", c_uint8), ("rollup", c_uint8), ("submetric", c_uint16)]


class Factor(ctypes.Structure):
    """NVPW_DimUnitFactor."""

    _fields_ = [("unit", c_uint32), ("exponent", c_int8)]


# The parameters of each function, after the size and the null pointer.
PARAMETERS = {
    "InitializeHost": [],
    "CUDA_MetricsEvaluator_CalculateScratchBufferSize": [("chip", c_char_p), ("image", c_void_p), ("bytes", c_size_t)],
    "CUDA_MetricsEvaluator_Initialize": [
        ("scratch", c_void_p), ("bytes", c_size_t), ("chip", c_char_p), ("image", c_void_p), ("data", c_void_p),
        ("data_bytes", c_size_t), ("evaluator", c_void_p),
    ],
    "MetricsEvaluator_ConvertMetricNameToMetricEvalRequest": [
        ("evaluator", c_void_p), ("name", c_char_p), ("request", POINTER(Request)), ("bytes", c_size_t),
    ],
    "MetricsEvaluator_GetMetricDimUnits": [
        ("evaluator", c_void_p), ("request", POINTER(Request)), ("bytes", c_size_t), ("factors", POINTER(Factor)),
        ("count", c_size_t), ("factor_bytes", c_size_t),
    ],
    "MetricsEvaluator_DimUnitToString": [
        ("evaluator", c_void_p), ("unit", c_uint32), ("singular", c_char_p), ("plural", c_char_p),
    ],
}  # fmt: skip


class Evaluator:
    """What one chip can count."""

    def __init__(self, library: ctypes.CDLL, chip: str) -> None:
        self.library, name = library, chip.encode()
        needed = self._must("CUDA_MetricsEvaluator_CalculateScratchBufferSize", chip=name)
        self.scratch = ctypes.create_string_buffer(needed.bytes)  # in use as long as the evaluator is
        where = ctypes.cast(self.scratch, c_void_p)
        made = self._must("CUDA_MetricsEvaluator_Initialize", scratch=where, bytes=needed.bytes, chip=name)
        self.evaluator = made.evaluator

    def unit(self, metric: str) -> str | None:
        """The unit of a metric, bytes or l2_sectors for example; None where there is no such metric."""
        request = pointer(Request())
        asked = {"evaluator": self.evaluator, "request": request, "bytes": size(Request)}
        ok, _ = self._call("MetricsEvaluator_ConvertMetricNameToMetricEvalRequest", name=metric.encode(), **asked)
        if not ok:
            return None
        factors = (Factor * 4)()
        there = {"factors": ctypes.cast(factors, POINTER(Factor)), "count": 4, "factor_bytes": size(Factor)}
        count = self._must("MetricsEvaluator_GetMetricDimUnits", **asked, **there).count
        return " ".join(self._plural(factor.unit) for factor in factors[:count])

    def _plural(self, unit: int) -> str:
        return self._must("MetricsEvaluator_DimUnitToString", evaluator=self.evaluator, unit=unit).plural.decode()

    def _must(self, function: str, **values: object) -> ctypes.Structure:
        ok, parameters = self._call(function, **values)
        if not ok:
            raise SystemExit(f"{function} fails")
        return parameters

    def _call(self, function: str, **values: object) -> tuple[bool, ctypes.Structure]:
        return call(self.library, function, **values)


def call(library: ctypes.CDLL, function: str, **values: object) -> tuple[bool, ctypes.Structure]:
    """Call NVPW_`function`: whether it went well, and its parameters afterwards."""
    fields = [("struct_bytes", c_size_t), ("null", c_void_p), *PARAMETERS[function]]
    parameters = type(function, (ctypes.Structure,), {"_fields_": fields})(**values)
    parameters.struct_bytes = size(type(parameters))
    return getattr(library, f"NVPW_{function}")(byref(parameters)) == 0, parameters


def size(structure: type[ctypes.Structure]) -> int:
    """Bytes up to the end of the last field."""
    field = getattr(structure, structure._fields_[-1][0])
    return field.offset + field.size


# ------------------------------------------------------------------------------------------------ the check
def problems(evaluator: Evaluator, chip: str) -> Iterator[str]:
    """What is wrong with a chip's metrics."""
    for quantity, metric in metrics_of(chip).items():
        unit, wanted = evaluator.unit(metric), quantity.rpartition("_")[2]
        if unit is None:
            yield f"{chip}: {quantity}: there is no {metric}"
        elif unit.rpartition("_")[2] != UNITS.get(wanted, wanted):
            yield f"{chip}: {quantity}: {metric} is in {unit}"


def examine(folder: Path) -> int:
    """Prints a line for each chip, then what is wrong: the exit code."""
    library, wrong = ctypes.CDLL(str(next(folder.glob(LIBRARY)))), list[str]()
    call(library, "InitializeHost")
    for chip in chips().values():
        evaluator = Evaluator(library, chip)
        print(f"{chip}: {len(metrics_of(chip))} metrics")
        wrong += problems(evaluator, chip)
        wrong += [
            f"{chip}: the check takes {name} for a metric" for name in MUTANTS if evaluator.unit(name) is not None
        ]
    print("\n".join(wrong) if wrong else "every metric exists, in its unit")
    return 1 if wrong else 0


def main(arguments: list[str]) -> int:
    if arguments:
        return examine(Path(arguments[0]))
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, CUPTI]
        subprocess.run(pip, check=True)
        return examine(Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
