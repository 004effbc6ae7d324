"""`ioaware bench --device cuda` on a CuPy that launches with the PTX executor and has a clock of its own."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ioaware.errors import InputError, Skipped, VerificationError
from ioaware.problem import AttentionProblem
from ioaware.reference import random_inputs
from ioaware_kernels.bench import Plan, Point, grid, measure
from ioaware_kernels.bench.gpu_loops import CHAINS, COPY, EXPONENTIALS
from ioaware_kernels.bench.on_cuda import Cuda, _device
from ioaware_kernels.launch import Module, launch
from ioaware_kernels.tensors import Tensor
from tests.messages.command import call
from tests.unit import fake_cupy
from tests.unit.fake_cupy import FakeCupy

PROBLEM = AttentionProblem(q_len=1, dtype="fp32", score_dtype="fp32", heads=2)
PROPERTIES = {
    "name": b"A small GPU", "major": 8, "minor": 0, "multiProcessorCount": 1, "sharedMemPerMultiprocessor": 65_536,
    "l2CacheSize": 32_768, "totalGlobalMem": 1 << 30,
}  # fmt: skip
LAUNCH_S = 1e-3


class Array(fake_cupy.Array):
    """An array whose bytes can be set."""

    def __init__(self, fake, values):
        super().__init__(fake, values)
        self.size = self.host.size
        self.data.memset_async = lambda value, size: self.host.view(np.uint8).reshape(-1)[:size].fill(value)


class BenchCupy(FakeCupy):
    """With what measuring needs: events, matrix products, properties."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.cuda.Event = self.event
        self.cuda.get_elapsed_time = lambda a, b: 1e3 * (b.at - a.at)
        self.cuda.runtime.getDeviceProperties = lambda number: PROPERTIES
        self.cuda.runtime.runtimeGetVersion = lambda: 12_020

    def event(self):
        found = SimpleNamespace(at=None, synchronize=self.check)
        found.record = lambda: setattr(found, "at", self.now)
        return found

    def _device(self, number=None):
        device = super()._device(number)
        device.id = device.number
        return device

    def run(self, kernel, *how):
        self.now += LAUNCH_S
        super().run(kernel, *how)

    def empty(self, shape, dtype):
        return Array(self, np.zeros(shape, dtype))

    def asarray(self, values):
        self.note("upload")
        return Array(self, values)

    def matmul(self, a, b):
        self.now += LAUNCH_S / 1000


@pytest.fixture
def cupy(monkeypatch):
    """The machine; its loops are small, for the executor runs them."""
    fake = BenchCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr("ioaware_kernels.bench.on_cuda.BLOCKS", 1)
    monkeypatch.setattr("ioaware_kernels.bench.on_cuda.SIDES", (8,))
    return fake


def plan(names=("naive", "flash2"), lengths=(8, 16), **shape):
    return Plan(grid(names, PROBLEM, lengths, [4]), repeats=3, peers=False, **shape)


# ------------------------------------------------------------------------------------------------ the whole path
def test_a_run(cupy):
    bench = measure(plan(), Cuda())
    assert bench.device["name"] == "A small GPU"
    assert [(r.algorithm, r.problem["q_len"]) for r in bench.rows] == [
        ("naive", 8), ("flash2", 8), ("naive", 16), ("flash2", 16),
    ]  # fmt: skip
    for row in bench.rows:
        assert row.median_s("warm") == pytest.approx(LAUNCH_S * row.counted["launches"])
        assert set(row.errors) >= {"O"}
        assert all(e["error"] <= e["tolerance"] for e in row.errors.values())
        assert row.tiles == "32x32"


@pytest.mark.parametrize("name", ["flash2", "naive", "flash1", "online_softmax", "split_kv"])
def test_every_forward_kernel_is_timed_and_right(name, cupy):
    (row,) = measure(plan((name,), (8,)), Cuda()).rows
    assert row.problems == []


def test_the_tensors_stay_on_the_gpu(cupy):
    """Uploaded once for each of the three rounds: Q, K, V, and the ceiling's matrix."""
    measure(plan(("flash2",), (8,)), Cuda())
    assert [what for what, *_ in cupy.log].count("upload") == 3 * (3 + 1)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_tensor_cores(dtype, cupy):
    pytest.importorskip("ml_dtypes")
    problem = AttentionProblem(q_len=1, dtype=dtype, score_dtype=dtype)
    (row,) = measure(Plan(grid(["flash2_mma"], problem, [24], [16]), repeats=3, peers=False), Cuda()).rows
    assert (row.problems, row.problem["dtype"]) == ([], dtype)


def test_causal_has_its_kernel(cupy):
    problem = AttentionProblem(q_len=1, dtype="fp32", mask="causal")
    causal = Plan(grid(["flash2_causal"], problem, [40], [4]), repeats=3, peers=False)
    (row,) = measure(causal, Cuda()).rows
    assert (row.problems, row.problem["mask"]) == ([], "causal")


def test_a_wrong_kernel_is_seen(cupy, monkeypatch):
    monkeypatch.setattr(cupy, "asnumpy", lambda array: array.host + np.int32(1 << 20))
    (row,) = measure(plan(("flash2",), (8,)), Cuda()).rows
    assert "differs from exact softmax" in row.problems[0]


def test_a_kernel_that_stores_nothing_is_seen(cupy, monkeypatch):
    monkeypatch.setattr(FakeCupy, "run", lambda *_: None)
    (row,) = measure(plan(("flash2",), (8,)), Cuda()).rows
    assert row.problems == ["O is not written everywhere", "L is not written everywhere"]


def test_what_fails_on_the_gpu_is_one_sentence(cupy, monkeypatch):
    def failed(*_):
        raise fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    on = Cuda()
    monkeypatch.setattr(FakeCupy, "run", failed)
    with pytest.raises(VerificationError, match="failed on the GPU: cudaErrorIllegalAddress"):
        measure(plan(("flash2",), (8,)), on)


def test_too_little_memory(cupy, monkeypatch):
    on = Cuda()

    def full(shape, dtype):
        raise fake_cupy.OutOfMemoryError("out of memory")

    monkeypatch.setattr(cupy, "empty", full)
    with pytest.raises(InputError, match="more than the GPU has free"):
        on.prepare(Point("flash2", AttentionProblem(q_len=8, dtype="fp32")), random_inputs(PROBLEM))


# ------------------------------------------------------------------------------------------------ refusals
REFUSED = {
    "flash2_backward": ("flash2_backward", {}, "only forward passes are timed"),
    "a mask": ("flash2", {"mask": "causal"}, "flash2 has only full"),
    "a dtype": ("flash2", {"dtype": "fp16"}, "flash2 .* fp32"),
    "a head_dim": ("flash2", {"head_dim": 300, "value_dim": 300}, "at most 256"),
    "a length": ("naive", {"q_len": 10**6}, "the memory"),
    "a name": ("flash3", {}, "'flash3' is unknown"),
}


@pytest.mark.parametrize(("name", "how", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(name, how, why, cupy):
    with pytest.raises(InputError, match=why):
        Cuda().check(Point(name, AttentionProblem(**{"q_len": 8, "dtype": "fp32", **how})))


def test_tiles_are_built_in(cupy):
    from ioaware.readers.evaluate import TileSizes

    with pytest.raises(InputError, match=r"built for; leave --tiles out$"):
        Cuda().check(Point("flash2", AttentionProblem(q_len=8, dtype="fp32"), TileSizes(8, 8)))


def test_without_cupy_it_is_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(Skipped):
        Cuda()


def test_the_command(cupy, tmp_path):
    options = "--device cuda --alg flash2 --N 8 --d 4 --heads 1 --repeats 3 --no-peers --json"
    result = call(tmp_path, "bench", *options.split())
    assert result.code == 0, result.err
    assert json.loads(result.out)["device"]["kind"] == "cuda"


# ------------------------------------------------------------------------------------------------ which GPU
def test_a_gpu_finds_its_table():
    h100 = {**PROPERTIES, "major": 9, "multiProcessorCount": 132, "totalGlobalMem": 85 * 10**9}
    assert _device(h100).name == "NVIDIA H100 SXM5 80 GB"
    assert "H200" in _device({**h100, "totalGlobalMem": 150 * 10**9}).name


def test_a_gpu_without_a_table_is_what_it_says():
    found = _device(PROPERTIES)
    assert (found.name, found.sm_count, found.l2_bytes) == ("A small GPU", 1, 32_768)


# ------------------------------------------------------------------------------------------------ the loops
def test_the_copy_loop_copies_every_byte_once_a_turn():
    values = np.arange(4 * 70, dtype=np.float32).reshape(1, 1, 1, -1)
    source, target = (Tensor(name, values.shape) for name in ("from", "to"))
    counts = launch(Module(COPY), "copy", (2,), (32,), [source.fill(values), target, 70, 3]).counts
    assert (target.values == values).all()
    moved = counts.traffic(["from", "to"])
    assert (moved["from"].read_bytes, moved["to"].write_bytes) == (3 * values.nbytes, 3 * values.nbytes)


def test_the_exponential_loop_does_so_many():
    """Each chain repeats x = -(2^x) from 0.5 on; the sum of all chains is stored."""
    out = Tensor("out", (1, 1, 1, 64))
    launch(Module(EXPONENTIALS), "exponentials", (2,), (32,), [out, 5])
    x = 0.5
    for _ in range(5):
        x = -(2.0**x)
    assert out.values == pytest.approx(CHAINS * x, rel=1e-5)
