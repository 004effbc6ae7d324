"""Counters beside predictions: a faithful GPU agrees everywhere, and each way of being unfaithful is seen."""

from __future__ import annotations

import json

import pytest

from ioaware.errors import Skipped
from ioaware.problem import AttentionProblem
from ioaware.traffic import Moved, Traffic
from ioaware_kernels.counters import compare, tools, worker
from ioaware_kernels.counters.compare import Row, check, quantities
from ioaware_kernels.counters.metrics import metrics_of
from ioaware_kernels.counters.ncu import Counted, Reading
from ioaware_kernels.counters.worker import Job
from ioaware_kernels.cuda_engine import CudaEngine
from ioaware_kernels.implementation import load, names
from ioaware_kernels.predict import Prediction, predict
from tests.unit.fake_nvidia_tools import raw_page, tool
from tests.unit.test_cuda_refusals import without_cupy

CHIP = "GA100"


def job(kernel="flash2_backward"):
    """With grouped heads, no tile full."""
    implementation = load(kernel)
    problem = AttentionProblem(
        q_len=2 if implementation.packs_group else 37, kv_len=41, head_dim=24, batch=2, heads=4, kv_heads=2,
        mask=implementation.masks[0], dtype=implementation.dtypes[0], direction=implementation.direction,
    )  # fmt: skip
    return Job(implementation, problem, seed=3)


def counts_of(launched):
    """What a GPU without caches would count: instructions as the executor has them, 32-byte sectors above."""

    def total(traffic, kind):
        return sum(getattr(moved, kind) for moved in traffic.tensors.values())

    read, written, added = (total(launched.tensors, kind) for kind in Moved._fields)
    shared_read, shared_written, _ = (total(launched.shared, kind) for kind in Moved._fields)
    return {
        "global_bytes": read + written + added, "global_load_bytes": read, "global_store_bytes": written,
        "global_red_bytes": added, "shared_bytes": shared_read + shared_written, "shared_load_bytes": shared_read,
        "shared_store_bytes": shared_written, "l2_to_sm_bytes": read, "sm_to_l2_bytes": written + added,
        "dram_read_bytes": read,
    }  # fmt: skip


def counted(of, **changes):
    """Every launch of a job as a faithful GPU counts it, but for what is changed in the last one."""
    found = [counts_of(launched) for launched in of.run().launches]
    found[-1] |= {name: found[-1].get(name, 0) + more for name, more in changes.items()}
    return [
        Counted(launch.entry, {name: Reading(one.get(name, 0)) for name in metrics_of(CHIP)})
        for launch, one in zip(of.implementation.launches, found, strict=True)
    ]


@pytest.mark.parametrize("kernel", names())
def test_the_executor_is_a_faithful_gpu(kernel):
    of = job(kernel)
    compared = compare.compare(of, counted(of), "cold", of.run().launches)
    rows = [row for one in compared for row in one.rows]
    assert [one.kernel for one in compared] == [launch.kernel for launch in of.implementation.launches]
    assert {row.verdict for row in rows if row.relation == "="} == {"equal"}
    assert {row.verdict for row in rows if row.relation == ">="} == {"holds"}
    assert all(row.predicted == row.counted for row in rows if row.relation == "=")
    assert [sentence for one in compared for sentence in one.problems] == []


@pytest.mark.parametrize(
    ("counter", "more", "wrong"),
    [
        ("global_load_bytes", 4, ["tensors read"]),
        ("global_async_bytes", 16, ["tensors read"]),
        ("global_store_bytes", -4, ["tensors written"]),
        ("global_red_bytes", 4, ["tensors added to"]),
        ("global_bytes", 4, ["tensors, all kinds"]),
        ("local_store_bytes", 4, ["local memory"]),
        ("shared_load_bytes", 4, ["shared memory read"]),
        ("shared_matrix_load_bytes", 16, ["shared memory read"]),
        ("shared_store_bytes", 4, ["shared memory written"]),
        ("shared_atomic_bytes", 4, ["shared memory added to"]),
        ("shared_bytes", 4, ["shared memory, all kinds"]),
    ],
)
def test_a_few_bytes_too_many_or_too_few_are_seen(counter, more, wrong):
    of = job()
    *_, last = compare.compare(of, counted(of, **{counter: more}), "cold")
    assert [row.quantity for row in last.rows if row.is_wrong] == wrong
    assert last.problems[0].startswith(f"convert: {wrong[0]}: ")


@pytest.mark.parametrize("counter", ["l2_to_sm_bytes", "sm_to_l2_bytes", "dram_read_bytes"])
def test_less_than_a_launch_touches_cannot_be_with_cold_caches(counter):
    """`convert` reads dQ_sum once and writes dQ once: a byte less has come from nowhere."""
    of = job()
    for cache, wrong in (("cold", 1), ("warm", 0)):
        *_, last = compare.compare(of, counted(of, **{counter: -1}), cache)
        assert sum(row.is_wrong for row in last.rows) == wrong


def test_quantities_add_up_over_tensors_and_regions():
    tensors = Traffic({"Q": Moved(8, 0, 0), "dQ": Moved(16, 32, 64)})
    assert quantities(Prediction(tensors, Traffic({"sQ": Moved(128, 256)}))) == {
        "tensors read": 24, "tensors written": 32, "tensors added to": 64, "tensors, all kinds": 120,
        "local memory": 0, "shared memory read": 128, "shared memory written": 256, "shared memory added to": 0,
        "shared memory, all kinds": 384,
    }  # fmt: skip


def test_what_a_launch_touches_moves_once():
    """split_kv: K and V are read once, Q once per split."""
    of = job("split_kv")
    first = predict(of.implementation, of.problem)[0].tensors
    once = compare.floors(of, predict(of.implementation, of.problem))[0].tensors
    p = of.problem
    assert once["K"].read == first["K"].read == 4 * p.batch * p.kv_heads * p.kv_len * p.head_dim
    assert once["Q"].read == 4 * p.batch * p.heads * p.q_len * p.head_dim


# ------------------------------------------------------------------------------------------------ rows
@pytest.mark.parametrize(
    ("relation", "predicted", "measured", "verdict"),
    [
        ("=", 100, Reading(100), "equal"),
        ("=", 100, Reading(101), "differs"),
        ("=", 100, Reading(101, 5), "as printed"),
        ("=", 100, Reading(106, 5), "differs"),
        (">=", 100, Reading(100), "holds"),
        (">=", 100, Reading(99), "below"),
        (">=", 100, Reading(99, 5), "holds"),
        ("", 100, Reading(99), "-"),
        ("=", None, Reading(99), "-"),
        ("=", 100, None, "-"),
    ],
)
def test_a_verdict(relation, predicted, measured, verdict):
    row = Row("x", relation, predicted, None, measured)
    assert (row.verdict, row.is_wrong) == (verdict, verdict in ("differs", "below"))
    assert row.as_dict()["verdict"] == verdict


def test_without_a_number_there_is_no_verdict():
    of = job("flash2")
    (one,) = counted(of)
    one.counts["global_async_bytes"] = None
    (compared,) = compare.compare(of, [one], "cold")
    assert compared.rows[0] == Row("tensors read", "=", compared.rows[0].predicted, None, None)
    assert compared.as_dict()["counters"]["global_async_bytes"] is None


def test_shared_memory_whose_use_the_table_does_not_tell_is_not_judged(monkeypatch):
    of = job("flash2")
    (told,) = predict(of.implementation, of.problem)
    without = told._replace(shared=Traffic({n: m for n, m in told.shared.tensors.items() if n != "sP"}))
    monkeypatch.setattr(compare, "predict", lambda *_: [without])
    (compared,) = compare.compare(of, counted(of), "cold")
    assert {row.verdict for row in compared.rows if row.quantity.startswith("shared")} == {"-"}


# ------------------------------------------------------------------------------------------------ the whole path
@pytest.fixture
def allocators(gpu):
    """What the worker asks of CuPy's memory pool."""
    found = []
    gpu.cuda.set_allocator = found.append
    return found


def test_a_job_through_ncu(tmp_path, monkeypatch, gpu):
    of = job("flash2")
    page = raw_page(CHIP, [(one.entry, {n: r.amount for n, r in one.counts.items()}) for one in counted(of)])
    tool(tmp_path, "ncu", page)
    monkeypatch.setenv("PATH", str(tmp_path))
    (compared,) = check(of, "cold", execute=True)
    assert {row.verdict for row in compared.rows} == {"equal", "holds"}
    assert {row.counted is None for row in compared.rows if row.relation == "="} == {False}
    assert json.loads(json.dumps(compared.as_dict()))["rows"][0]["executor_bytes"] == compared.rows[0].predicted


def test_a_chip_without_known_counters_is_skipped(gpu):
    gpu.capability = "70"
    with pytest.raises(Skipped, match=r"^no hardware counters are known for compute capability 7\.0,"):
        check(job("flash2"))


def test_without_a_gpu_it_is_skipped(monkeypatch):
    without_cupy(monkeypatch)
    with pytest.raises(Skipped, match=r"^the engine cuda needs CuPy"):
        check(job("flash2"))


# ------------------------------------------------------------------------------------------------ the worker
def test_jobs_come_out_as_they_went_in(tmp_path):
    jobs = [job(kernel) for kernel in names()]
    worker.write(jobs, tmp_path / "jobs.json")
    found = worker.read(tmp_path / "jobs.json")
    assert [(j.implementation.path, j.problem, j.seed) for j in found] == [
        (j.implementation.path, j.problem, j.seed) for j in jobs
    ]


def test_the_worker_launches_every_job_without_a_pool(tmp_path, gpu, allocators):
    jobs = [job("flash2"), job("flash2_backward")]
    worker.write(jobs, tmp_path / "jobs.json")
    assert worker.main([str(tmp_path / "jobs.json")]) == 0
    launched = [launch.kernel for launch in gpu.launches]
    assert launched == [launch.entry for j in jobs for launch in j.implementation.launches]
    assert allocators == [None]


def test_the_workers_kernels_read_what_verify_gives_them(tmp_path, gpu, allocators):
    """A backward pass needs O and L of the forward pass: with them its gradients are those of the executor."""
    of = job("flash2_no_atomics")
    here, there = of.run(), of.run(CudaEngine())
    assert {n: a.tobytes() for n, a in here.outputs.items()} == {n: a.tobytes() for n, a in there.outputs.items()}


def test_the_workers_errors_are_one_line(tmp_path, monkeypatch, capsys):
    without_cupy(monkeypatch)
    worker.write([job("flash2")], tmp_path / "jobs.json")
    assert worker.main([str(tmp_path / "jobs.json")]) == 77
    assert capsys.readouterr().err.startswith("the engine cuda needs CuPy: ")


def test_the_worker_finds_the_packages(tmp_path, monkeypatch):
    """In a process of its own, installed or not."""
    python, *module = worker.command(tmp_path / "jobs.json")
    assert module == ["-m", "ioaware_kernels.counters.worker", str(tmp_path / "jobs.json")]
    code = "import ioaware, ioaware_kernels.counters; print('found')"
    monkeypatch.chdir(tmp_path)
    assert tools.run([python, "-c", code], 60, worker.environment()).out == "found\n"
