"""Many devices: closed forms, time, links; and broken schemes and machines, which must be noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ioaware import device
from ioaware.errors import InputError, VerificationError
from ioaware.masks import Band
from ioaware.parallel import SCHEMES, find, find_all
from ioaware.parallel.compare import Comparison
from ioaware.parallel.count import Counts, Shapes, count
from ioaware.parallel.execute import Devices, execute, execute_on
from ioaware.parallel.layout import chunk, contiguous, striped, zigzag
from ioaware.parallel.links import NETWORKS, SERVER, LinkRate, Topology, topology
from ioaware.parallel.machine import run
from ioaware.parallel.ring import ring
from ioaware.parallel.timeline import Rates, timeline
from ioaware.parallel.verify import check_counts, check_values, verify
from ioaware.problem import AttentionProblem
from ioaware.reference import attention, random_inputs

SMALL = AttentionProblem(q_len=13, heads=4, kv_heads=2, head_dim=3, mask="causal", direction="fwd+bwd")
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


def forward(problem):
    return replace(problem, direction="fwd")


# ------------------------------------------------------------------------------------------------ who holds what
@pytest.mark.parametrize("rule", [contiguous, striped, zigzag])
@pytest.mark.parametrize(("n", "devices"), [(12, 4), (13, 4), (5, 5), (7, 5), (1, 1)])
def test_every_token_is_on_one_device_and_none_has_two_more_than_another(rule, n, devices):
    held = [[t for run in shard.tokens for t in run] for shard in rule(AttentionProblem(q_len=n), devices).q]
    assert sorted(t for tokens in held for t in tokens) == list(range(n))
    assert max(map(len, held)) - min(map(len, held)) <= (2 if rule is zigzag else 1)
    assert min(map(len, held)) >= 1


def test_the_first_chunks_are_the_longer_ones():
    assert [chunk(14, 4, i) for i in range(4)] == [range(4), range(4, 8), range(8, 11), range(11, 14)]


# ------------------------------------------------------------------------------------------------ counts
N, P, D = 10**9, 8, 128
CLOSED_FORMS = {  # words sent per device for 32 heads, 8 key/value heads, as the schemes' files state them
    ("ring", "fwd"): (P - 1) * N // P * 8 * 2 * D,
    ("striped", "bwd"): (2 * P - 1) * N // P * 8 * 2 * D,
    ("zigzag", "fwd+bwd"): (3 * P - 2) * N // P * 8 * 2 * D,
    ("all_gather", "fwd"): (P - 1) * N // P * 8 * 2 * D,
    ("all_gather", "bwd"): 2 * (P - 1) * N // P * 8 * 2 * D,
    ("ulysses", "fwd"): (P - 1) * N // P // P * (32 + 8 + 8 + 32) * D,
    ("ulysses", "bwd"): (P - 1) * N // P // P * (32 + 32 + 8 + 8) * D,
    ("tensor", "fwd+bwd"): 0,
}


@pytest.mark.parametrize(("name", "direction"), CLOSED_FORMS)
def test_the_closed_form_of_a_scheme_for_a_billion_tokens(name, direction):
    problem = AttentionProblem(
        q_len=N, heads=32, kv_heads=8, head_dim=D, dtype="fp16", accum_dtype="fp16", direction=direction
    )
    assert count(find(name), problem, P).sent == (2 * CLOSED_FORMS[name, direction],) * P


def sent(name, **problem):
    """Bytes that all of four devices send backward."""
    shape = {"q_len": 8, "heads": 4, "head_dim": 16, "direction": "bwd", **problem}
    return sum(count(find(name), AttentionProblem(**shape), 4).sent)


def test_partial_sums_travel_in_the_accumulator_format():
    """In a ring K and V hop 3 times in 2 bytes, dK and dV 4 times in 4. Ulysses: where devices share a kv head."""
    assert sent("ring", accum_dtype="fp32") * (3 + 4) == sent("ring", accum_dtype="fp16") * (3 + 2 * 4)
    assert sent("ulysses", kv_heads=4, accum_dtype="fp32") == sent("ulysses", kv_heads=4, accum_dtype="fp16")
    assert sent("ulysses", kv_heads=2, accum_dtype="fp32") > sent("ulysses", kv_heads=2, accum_dtype="fp16")


@each_scheme
def test_one_device_sends_nothing_and_computes_everything(scheme):
    problem = SMALL if scheme.backward else forward(SMALL)
    counts = count(scheme, problem, 1)
    assert (counts.sent, counts.steps, counts.links, counts.imbalance) == ((0,), 0, {}, 1.0)
    assert counts.pairs == (problem.pairs() * len(problem.passes),)
    assert execute(scheme, problem, 1, random_inputs(problem)).links == {}


@pytest.mark.parametrize("mask", ["full", "causal", Band(left=3, right=0)])
@each_scheme
def test_no_scheme_computes_a_pair_twice(scheme, mask):
    problem = forward(replace(SMALL, mask=mask))
    assert sum(count(scheme, problem, 2).pairs) == problem.pairs()


def test_the_order_of_tokens_changes_no_result():
    inputs = random_inputs(SMALL)
    runs = [execute(find(name), SMALL, 4, inputs) for name in ("ring", "striped", "zigzag")]
    for name, want in runs[0].outputs.items():
        for other in runs[1:]:
            np.testing.assert_allclose(other.outputs[name], want, rtol=1e-9, atol=1e-9)


def test_a_shared_kv_head_goes_to_every_device_that_reads_it():
    """Multi-query attention under Ulysses: K and V are replicated, Q and O are not."""
    problem = AttentionProblem(q_len=64, heads=8, kv_heads=1, head_dim=16)
    one, many = (count(find("ulysses"), replace(problem, kv_heads=h), 8) for h in (1, 8))
    assert one.sent == many.sent
    verify(find("ulysses"), replace(problem, q_len=9, head_dim=2, direction="fwd+bwd"), 8)


# ------------------------------------------------------------------------------------------------ mutants
def forgets_a_block(p, q, k, v):
    home, state = (k, v), p.attend(q, k, v)
    for _ in range(p.devices - 2):
        k, v = p.shift(k, v)
        state = p.attend(q, k, v, state)
    o, lse = p.finish(state)
    return o, (q, *home, o, lse)


def attends_to_its_own_block_twice(p, q, k, v):
    o, lse = p.finish(p.attend(q, k, v, p.attend(q, k, v)))
    return o, (q, k, v, o, lse)


def leaves_gradients_where_they_are(p, saved, do):
    q, k, v, o, lse = saved
    delta = p.row_sum(o, do)
    sums = p.gradients(q, k, v, lse, delta, do)
    for _ in range(p.devices - 1):
        k, v, *travelling = p.shift(k, v, *sums[1:])
        sums = p.add((sums[0], *travelling), p.gradients(q, k, v, lse, delta, do))
    return p.stored(*sums)


def keeps_its_part_of_the_gradients(p, saved, do):
    q, k, v, o, lse = saved
    dq, *_ = p.gradients(q, *p.all_gather(k, v), lse, p.row_sum(o, do), do)
    return p.stored(dq, *p.gradients(q, k, v, lse, p.row_sum(o, do), do)[1:])


WRONG_TEXTS = [
    ("ring", {"forward": forgets_a_block}, "O differs from exact attention"),
    ("ring", {"forward": attends_to_its_own_block_twice}, "O differs from exact attention"),
    ("ring", {"backward": leaves_gradients_where_they_are}, "dK ends on other devices"),
    ("all_gather", {"backward": keeps_its_part_of_the_gradients}, "dK differs from exact attention"),
    ("ring", {"home": zigzag, "forward": lambda p, q, k, v: ring(p, q, v, k)}, "O differs from exact attention"),
]


@pytest.mark.parametrize(("name", "mutation", "said"), WRONG_TEXTS)
def test_a_wrong_scheme_is_noticed(name, mutation, said):
    verify(find(name), SMALL, 3)
    with pytest.raises(VerificationError, match=said):
        verify(replace(find(name), **mutation), SMALL, 3)


class MergesWithoutRescaling(Devices):
    def merge(self, a, b):
        return [np.maximum(a[0], b[0]), a[1] + b[1], a[2] + b[2]]


class ForgetsThatHeadsAreGrouped(Devices):
    def _serving(self, q, k):
        return q.heads % len(k.heads)


class SendsAMessageToNobody(Devices):
    def stored(self, *values):
        self.wires.send(0, 1, [], [])
        return super().stored(*values)


WRONG_MACHINES = [
    (MergesWithoutRescaling, "O differs"),
    (ForgetsThatHeadsAreGrouped, "O differs"),
    (SendsAMessageToNobody, "no device received"),
]


def checked(machine):
    scheme, inputs = find("ring"), random_inputs(SMALL)
    done = execute_on(machine(SMALL, 3, scheme.home(SMALL, 3), inputs), scheme)
    check_values(scheme, attention(SMALL, inputs), done)


@pytest.mark.parametrize(("machine", "said"), WRONG_MACHINES)
def test_a_wrong_machine_is_noticed(machine, said):
    checked(Devices)
    with pytest.raises(VerificationError, match=said):
        checked(machine)


class CountsAHopTooFew(Shapes):
    def shift(self, *values):
        made = super().shift(*values)
        if sum(event.name == "shift" for event in self.events) == 1:
            del self.events[-1]
        return made


class CountsPartialSumsInTheStorageFormat(Shapes):
    def gradients(self, *values):
        return self.stored(*super().gradients(*values))


class CountsHiddenPairs(Shapes):
    def attend(self, *values):
        made = super().attend(*values)
        self.events[-1] = replace(self.events[-1], pairs=tuple(4 * 13 * 13 for _ in range(self.devices)))
        return made


class SendsBackwards(Shapes):
    def _around(self, sizes):
        return {(b, a): size for (a, b), size in super()._around(sizes).items()}


WRONG_COUNTS = [
    (CountsAHopTooFew, "bytes on links"),
    (CountsPartialSumsInTheStorageFormat, "bytes on links"),
    (SendsBackwards, "bytes on links"),
    (CountsHiddenPairs, "visible pairs"),
]


@pytest.mark.parametrize(("machine", "said"), WRONG_COUNTS)
def test_a_wrong_count_is_noticed(machine, said):
    scheme = find("ring")
    done = execute(scheme, SMALL, 3, random_inputs(SMALL))
    shapes = machine(SMALL, 3, scheme.home(SMALL, 3))
    run(shapes, scheme)
    with pytest.raises(VerificationError, match=said):
        check_counts(scheme, Counts(SMALL, 3, tuple(shapes.events)), done)


# ------------------------------------------------------------------------------------------------ links
H100 = device.load("h100-sxm")


@pytest.mark.parametrize("generation", ["edr", "hdr", "ndr"])
def test_an_infiniband_port_is_four_lanes(generation):
    gbit = {"edr": 100, "hdr": 200, "ndr": 400}[generation]
    assert NETWORKS[f"infiniband-{generation}"].bytes_per_s * 8 == gbit * 1e9


def test_a_device_is_joined_by_its_own_link_and_nodes_by_infiniband():
    found = topology(H100)
    assert (found.node, found.inside.name, found.inside.bytes_per_s) == (8, "NVLink 4", 450e9)
    assert found.between == NETWORKS["infiniband-ndr"]
    assert topology(H100, "pcie") == replace(
        found, node=SERVER, inside=LinkRate("PCIe", 63e9, H100.sources["pcie_bytes_per_s"])
    )
    assert topology(device.load("l40s")).inside.name == "PCIe"
    assert topology(device.load("tpu-v5e"), "ici").node == 256
    assert topology(H100, "50GB/s").inside.bytes_per_s == 50e9
    assert topology(H100, "infiniband", node=2).node == 2


def test_between_nodes_a_ring_passes_one_link_each_way_and_an_all_to_all_most():
    problem = AttentionProblem(q_len=64, heads=8, head_dim=16)
    sizes = {name: topology(H100, node=4).by_link(count(find(name), problem, 8).links) for name in ("ring", "ulysses")}
    hops, pairs = sizes["ring"], sizes["ulysses"]
    assert hops["InfiniBand NDR"] * 6 == hops["NVLink 4"] * 2
    assert pairs["InfiniBand NDR"] * 2 * 4 * 3 == pairs["NVLink 4"] * 2 * 4 * 4


def test_a_transfer_takes_as_long_as_its_busiest_direction():
    fast, slow = LinkRate("fast", 10.0, ""), LinkRate("slow", 1.0, "")
    two = Topology(2, fast, slow)
    assert two.seconds({(0, 1): 10, (1, 0): 20}) == 2.0  # both ways at once
    assert two.seconds({(0, 1): 10, (2, 1): 3, (3, 1): 3}) == 6.0  # into one device over one slow link
    assert two.seconds({}) == 0.0


# ------------------------------------------------------------------------------------------------ time
ONE = LinkRate("one", 1.0, "")
ALONE = Topology(8, ONE, ONE)


def time(name, problem, devices, flop_per_s, **memory):
    return timeline(count(find(name), problem, devices), ALONE, Rates(flop_per_s, **memory))


def hidden_from(name, problem, devices, flop_per_s):
    counts = count(find(name), problem, devices)
    return Comparison(find(name), counts, ALONE, timeline(counts, ALONE, Rates(flop_per_s))).hidden_from


def test_a_ring_is_hidden_from_the_least_block_on_and_not_before():
    """Tokens per device by bisection would find the same number: one token fewer, and something is exposed."""
    problem = AttentionProblem(q_len=4000, head_dim=8)
    rate = 100.0 * 1.0  # c = F / B = 100
    least = hidden_from("ring", problem, 4, rate)
    assert least == 100
    hidden, exposed = (time("ring", replace(problem, q_len=4 * c, kv_len=4 * c), 4, rate) for c in (least, least - 1))
    assert hidden.exposed_s == 0.0
    assert exposed.exposed_s > 0.0


def test_what_a_ring_exposes():
    """Forward: hops longer than the computations beside them. Backward also the last hop of dK and dV, home."""
    problem = AttentionProblem(q_len=40, head_dim=4, dtype="fp32")
    block = 2 * 10 * 4 * 4  # bytes of K and V, and of dK and dV
    slow, fast = (time("ring", problem, 4, flops) for flops in (1e-3, 1e12))
    assert slow.exposed_s == 0.0
    assert fast.total_s == pytest.approx(3 * block)
    backward = replace(problem, direction="bwd")
    assert time("ring", backward, 4, 1.0).exposed_s == pytest.approx(block)
    assert time("ring", backward, 4, 1e12).total_s == pytest.approx((3 + 4) * block)


@pytest.mark.parametrize("name", ["all_gather", "ulysses", "tree"])
def test_what_is_sent_before_or_after_all_computation_is_exposed(name):
    found = time(name, AttentionProblem(q_len=64, heads=4, head_dim=4), 4, 1e3)
    assert found.cover is None
    assert found.exposed_s == pytest.approx(found.transfer_s)
    assert found.transfer_s > 0


def test_a_gather_of_the_backward_pass_does_not_run_beside_the_forward_pass():
    problem = AttentionProblem(q_len=64, heads=4, head_dim=4)
    both, *passes = (
        time("all_gather", replace(problem, direction=d), 4, 1.0).total_s for d in ("fwd+bwd", "fwd", "bwd")
    )
    assert both == pytest.approx(sum(passes))


def test_a_decoding_step_takes_as_long_as_reading_its_keys():
    problem = AttentionProblem(q_len=1, kv_len=8000, heads=4, kv_heads=1)
    found = time("tree", problem, 8, 1e15, hbm_bytes_per_s=1e3)
    keys, state = 2 * 1000 * 64 * 2, 4 * (64 * 2 + 64 * 4 + 2 * 4)  # K and V; Q, O in fp32, m and l
    assert found.compute_s == pytest.approx((keys + state) / 1e3)


def test_a_window_has_no_length_from_which_on_a_ring_is_hidden():
    assert hidden_from("ring", AttentionProblem(q_len=4096, mask=Band(left=100, right=0)), 4, 1e3) is None


# ------------------------------------------------------------------------------------------------ refusals
def refusal(name, devices, **problem):
    with pytest.raises(InputError) as error:
        count(find(name), AttentionProblem(**{"q_len": 100, "heads": 12, "kv_heads": 4, **problem}), devices)
    return str(error.value)


def test_refusals_name_the_nearest_legal_value():
    assert refusal("ring", 0) == "devices=0: must be 1 to 256; the nearest legal value is 1"
    assert refusal("ring", 5000).endswith("the nearest legal value is 256")
    assert refusal("ring", 101) == "devices=101: ring has no more tokens to share out; the nearest legal value is 100"
    assert refusal("tree", 8, q_len=50, kv_len=7).endswith("the nearest legal value is 7")
    assert refusal("ulysses", 8).endswith(
        "shares out 12 heads, which the devices must divide; the nearest legal value is 6"
    )
    assert refusal("tensor", 12).endswith(
        "shares out 4 heads, which the devices must divide; the nearest legal value is 4"
    )
    assert refusal("ring", 4, dropout=0.1).startswith("dropout=0.1: ")
    assert refusal("ring", 4, padding=True).startswith("padding=True: ")
    assert refusal("ring", 4, q_len=(5, 9)).endswith("the nearest legal value is 9")
    assert "decoding scheme" in refusal("tree", 4, direction="bwd")


def test_schemes_by_name():
    assert find_all([]) == SCHEMES
    assert [s.name for s in find_all(["tree", "ring", "tree"])] == ["tree", "ring"]
    with pytest.raises(InputError, match="the nearest is 'ulysses'"):
        find("ulises")
