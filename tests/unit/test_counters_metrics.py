"""The table of metrics: which chips, what differs, and that the check against NVIDIA's evaluator can fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from ioaware import device, tables
from ioaware.errors import InputError, Skipped
from ioaware_kernels.counters.compare import FLOORS, SHARED, TENSORS
from ioaware_kernels.counters.metrics import chip_of, chips, metrics_of

ROOT = Path(__file__).parents[2]
CHIPS = list(chips().values())


def test_every_device_that_takes_the_golden_ptx_has_a_chip():
    """Compute capability 8.0 and more."""
    found = {device.load(name).compute_capability for name in tables.names(device.FOLDER)}
    assert {c for c in found if c and float(c) >= 8} <= chips().keys()
    assert chip_of("9.0") == "GH100"


def test_an_unknown_capability_is_skipped():
    with pytest.raises(Skipped, match=r"^no hardware counters are known for compute capability 7.0, only for 8.0, "):
        chip_of("7.0")


def test_an_unknown_chip_is_refused():
    with pytest.raises(InputError, match=r"^chip 'GH10' is unknown, the nearest is 'GH100'; known: GA100, "):
        metrics_of("GH10")


def test_what_differs_between_chips():
    def having(quantity):
        return {chip for chip in CHIPS if quantity in metrics_of(chip)}

    assert having("shared_wgmma_bytes") == {"GH100"}
    assert having("tma_load_bytes") == {"GH100", "GB100", "GB202"}
    assert metrics_of("GB202")["dram_read_bytes"] != metrics_of("GB100")["dram_read_bytes"]
    assert metrics_of("GH100")["tensor_fp16_ops"] != metrics_of("GA100")["tensor_fp16_ops"]


@pytest.mark.parametrize("chip", CHIPS)
def test_no_metric_has_two_meanings(chip):
    metrics = metrics_of(chip)
    assert len(set(metrics.values())) == len(metrics)


def test_every_counter_that_is_compared_is_in_the_table():
    known = {quantity for chip in CHIPS for quantity in metrics_of(chip)}
    for rule in (*TENSORS, *SHARED, *FLOORS):
        assert set(rule.counters) <= known
        assert any(counter in metrics_of("GA100") for counter in rule.counters)


# ------------------------------------------------------------------------------------------------ .ci/metrics.py
@pytest.fixture(scope="module")
def gate():
    spec = importlib.util.spec_from_file_location("ci_metrics", ROOT / ".ci" / "metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(**wrong):
    """An evaluator that knows every metric in the unit of its quantity, but for those given."""
    units = {metric: quantity.rpartition("_")[2] for quantity, metric in metrics_of("GA100").items()}
    said = {**units, metrics_of("GA100")["time_ns"]: "nanoseconds"}
    changed = {metrics_of("GA100")[quantity]: unit for quantity, unit in wrong.items()}
    return SimpleNamespace(unit={**said, **changed}.get)


def test_the_gate_sees_a_metric_that_is_not_there_or_in_another_unit(gate):
    assert list(gate.problems(stand_in(), "GA100")) == []
    wrong = stand_in(dram_read_bytes=None, l2_bytes="l2_sectors")
    assert list(gate.problems(wrong, "GA100")) == [
        "GA100: l2_bytes: lts__t_bytes.sum is in l2_sectors",
        "GA100: dram_read_bytes: there is no dram__bytes_read.sum",
    ]


def test_a_structure_ends_with_its_last_field(gate):
    """As NVPA_STRUCT_SIZE of the headers: without the padding that follows."""
    assert (gate.size(gate.Request), gate.size(gate.Factor)) == (12, 5)
