"""`parallel`: attention on many devices: what each scheme sends, how well its work is balanced, what is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .conventions import option
from .options import DEBUG, DEVICE, PROBLEM, decorated, hardware, problem

if TYPE_CHECKING:
    from ..parallel import Scheme
    from ..parallel.compare import Compared
    from ..problem import AttentionProblem

DEVICE_NAME, _, DEVICE_SETTINGS = DEVICE  # the size of the SRAM changes nothing between devices
RUN = (
    option("--devices", metavar="P", default="8", show_default=True, help="Devices that share the attention."),
    option("--scheme", "schemes", multiple=True, metavar="NAME", help="Repeatable; default all."),
    option("--link", metavar="NAME|RATE", help="Inside a node: nvlink, pcie, 50GB/s; default: the device's own."),
    option("--node", metavar="P", help="Devices per node; default: as many as the link joins."),
    option("--network", metavar="NAME|RATE", help="Between nodes, per device; default infiniband (NDR)."),
    option("--accum-dtype", metavar="NAME", help="What partial sums travel in; default fp32."),
    option("--scaling", metavar="P..P", help="From so many devices to so many, doubling."),
    option("--verify", is_flag=True, help="Also run each scheme on logical devices, a few tokens on each."),
    option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)


@click.command("parallel", context_settings={"help_option_names": ["-h", "--help"]})
@decorated(*PROBLEM, DEVICE_NAME, DEVICE_SETTINGS, *RUN)
@DEBUG
def parallel_command(**values: Any) -> None:
    """Count what ring, striped, zigzag, all-gather, Ulysses, tree and tensor parallelism send, exactly.

    Example: ioaware parallel --device h100-sxm --devices 8 --N 128K --heads 32 --kv-heads 8 --d 128 --causal
    """
    from ..parallel import find_all
    from ..parallel.compare import compare
    from ..parallel.links import topology
    from ..units import parse_count

    device, wanted, schemes = hardware({**values, "sram": None}), _problem(values), find_all(values["schemes"])
    node = parse_count(values["node"], "--node") if values["node"] else None
    links = topology(device, values["link"], node, values["network"])
    numbers = _doubling(values["scaling"]) if values["scaling"] else [parse_count(values["devices"], "--devices")]
    compared = {n: compare(schemes, wanted, n, device, links) for n in numbers}
    if not any(one.able for one in compared.values()):
        raise next(iter(compared[numbers[-1]].unable.values()))
    verified = _verified(schemes, wanted, compared) if values["verify"] else []
    if not values["as_json"]:
        from .show_parallel import show

        show(compared, wanted, device, links, verified)
        return
    import json

    from ..report import header, problem_dict

    out = {**header(device), "problem": problem_dict(wanted), "links": links.as_dict(), "verified": verified}
    click.echo(json.dumps({**out, "devices": {n: one.as_dict() for n, one in compared.items()}}, allow_nan=False))


def _problem(values: dict[str, Any]) -> AttentionProblem:
    wanted = problem(values)
    return replace(wanted, accum_dtype=values["accum_dtype"]) if values["accum_dtype"] else wanted


def _doubling(text: str) -> list[int]:
    """The numbers of `1..64`: 1, 2, 4, ..., 64."""
    from ..errors import InputError, refuse
    from ..units import parse_count

    first, dots, last = text.partition("..")
    if not dots:
        raise InputError(f"--scaling {text:.60}: not FROM..TO; write it like --scaling 1..64")
    low, high = parse_count(first, "--scaling"), parse_count(last, "--scaling")
    if low > high:
        raise refuse("--scaling", text, "the first number is at most the last", f"{high}..{low}")
    return [*(low << i for i in range((high // low).bit_length()) if low << i < high), high]


def _verified(schemes: tuple[Scheme, ...], wanted: AttentionProblem, compared: dict[int, Compared]) -> list[str]:
    """Each scheme that can be used, run with the most devices that are asked for, up to sixteen."""
    from ..errors import InputError
    from ..parallel.verify import shortened, verify

    done = []
    for scheme in schemes:
        able = [n for n, one in compared.items() if scheme.name in one.able and n <= MOST_VERIFIED]
        if not able:
            continue
        devices = max(able)
        verify(scheme, shortened(wanted, devices), devices)
        done.append(f"{scheme.name} on {devices}")
    if not done:
        raise InputError(f"--verify runs at most {MOST_VERIFIED} logical devices; give --devices {MOST_VERIFIED}")
    return done


MOST_VERIFIED = 16
