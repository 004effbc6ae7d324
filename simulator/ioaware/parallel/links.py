"""Which link carries a message, and how fast: the devices of a node share one kind of link, nodes another.

Every link is one device's way out of its node or to its peers, through a switch that is never in the way, and carries
its rate in both directions at once. Of a torus or a mesh all links of a device count together, as papers do; a scheme
that uses one of them at a time is slower than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..device import Device
from ..errors import InputError, unknown
from ..units import parse_rate
from .machine import MOST_DEVICES


@dataclass(frozen=True)
class LinkRate:
    """A kind of link: what one device sends, and receives, per second."""

    name: str
    bytes_per_s: float
    source: str


def _infiniband(generation: str, gbit_per_lane: int, source: str) -> LinkRate:
    rate = 4 * gbit_per_lane * 1e9 / 8
    return LinkRate(f"InfiniBand {generation}", rate, f"4 lanes x {gbit_per_lane} Gbit/s: {source}")


NETWORKS = {  # one port per device
    "infiniband-edr": _infiniband("EDR", 25, "NVIDIA ConnectX-4 InfiniBand user manual"),
    "infiniband-hdr": _infiniband("HDR", 50, "NVIDIA ConnectX-6 InfiniBand user manual (unverified)"),
    "infiniband-ndr": _infiniband("NDR", 100, "NVIDIA ConnectX-7 user manual"),
}
NETWORKS["infiniband"] = NETWORKS["infiniband-ndr"]
SERVER = 8  # devices on one host's PCIe, where the device's table names no link of its own


@dataclass(frozen=True)
class Topology:
    """Nodes of `node` devices, joined by `inside`; the nodes are joined by `between`."""

    node: int
    inside: LinkRate
    between: LinkRate

    def link(self, source: int, target: int) -> LinkRate:
        """What carries a message between two devices."""
        return self.inside if source // self.node == target // self.node else self.between

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"node": self.node, "inside": asdict(self.inside), "between": asdict(self.between)}

    def by_link(self, links: Mapping[tuple[int, int], int]) -> dict[str, int]:
        """All bytes, by the kind of link that carries them."""
        total: Counter[str] = Counter()
        for pair, size in links.items():
            total[self.link(*pair).name] += size
        return dict(total)

    def seconds(self, links: Mapping[tuple[int, int], int]) -> float:
        """Until the busiest direction of the busiest device's links is done."""
        longest = 0.0
        for link, inside in ((self.inside, True), (self.between, False)):
            out: dict[int, int] = {}
            into: dict[int, int] = {}
            for (source, target), size in links.items():
                if (source // self.node == target // self.node) is inside:
                    out[source] = out.get(source, 0) + size
                    into[target] = into.get(target, 0) + size
            longest = max(longest, max((*out.values(), *into.values()), default=0) / link.bytes_per_s)
        return longest


def topology(device: Device, link: str | None = None, node: int | None = None, network: str | None = None) -> Topology:
    """How devices of this kind are joined. Raises InputError.

    link     inside a node: a name (see `named`) or a rate. Default: the device's own link, else PCIe
    node     devices per node. Default: as many as the device's own link joins, 8 on PCIe, all on another link
    network  between nodes. Default: infiniband
    """
    own = _own(device)
    inside = named(link, device, "--link") if link else own.get(next(iter(own), ""))
    if inside is None:
        raise InputError(f"device {device.name!r} names no link: give --link, like --link infiniband or --link 50GB/s")
    joined = {"pcie": SERVER, _short(device): device.link_devices}
    usual = next((joined[name] for name, rate in own.items() if rate == inside), None)
    return Topology(node or usual or MOST_DEVICES, inside, named(network or "infiniband", device, "--network"))


def named(text: str, device: Device, flag: str) -> LinkRate:
    """A link by its name (nvlink, pcie, infiniband, ...) or its rate. Raises InputError."""
    if text[:1].isdigit():
        rate = parse_rate(text, f"{flag.removeprefix('--')}_bytes_per_s")
        return LinkRate(text, rate, "given by the user")
    known = {**_own(device), **NETWORKS}
    if text.lower() not in known:
        raise unknown(flag, text, known, f"known for this device: {', '.join(known)}, or a rate like 50GB/s")
    return known[text.lower()]


def _own(device: Device) -> dict[str, LinkRate]:
    """The device's own links, the fastest first."""
    rates = {_short(device): ("link_bytes_per_s", device.link or "link"), "pcie": ("pcie_bytes_per_s", "PCIe")}
    return {
        name: LinkRate(title, getattr(device, field), device.sources.get(field, ""))
        for name, (field, title) in rates.items()
        if getattr(device, field) is not None
    }


def _short(device: Device) -> str:
    """nvlink, of NVLink 4; what --set gave a rate but no name is "link"."""
    return (device.link.split() or ["link"])[0].lower()
