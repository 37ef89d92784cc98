"""What a machine can do: its number of operations, its memory, its lines to others.

In: a name and what the person knows better. Out: a `Machine`, and the time that a product of matrices, bytes of memory
or an exchange take on it. Peaks are the makers' data sheets (dense, without sparsity); the shares of them that are
reached are assumptions, stated here and printed with every prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch

from dinov2.errors import ConfigError
from dinov2.forecast.communication import COPIES, GATHER, SCATTER, Exchange

EFFICIENCY = 0.55  # of the peak, by matrix products and attention within a step; large products alone reach 0.8
MEMORY_SHARE = 0.8  # of the memory's bandwidth, by operations that only read and write
LINK_SHARE = 0.8  # of a line's nominal rate, by large exchanges
START_SECONDS = 15e-6  # of an exchange: its launch on both sides
HOP_SECONDS = 1e-6  # of one step of a ring within a node
NODE_HOP_SECONDS = 5e-6  # and from node to node


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One GPU of many alike."""

    name: str
    peak: Mapping[torch.dtype, float]  # FLOP/s of matrix products
    memory_bandwidth: float  # bytes/s
    memory_gib: float
    nvlink: float  # bytes/s in each direction, one GPU to the others of its node together
    link: float  # bytes/s in each direction, one line from the node outwards
    links_per_node: int | None  # None: one a GPU
    per_node: int
    source: str
    efficiency: float = EFFICIENCY
    memory_share: float = MEMORY_SHARE
    link_share: float = LINK_SHARE

    def compute_seconds(self, flops: float, *, dtype: torch.dtype) -> float:
        """`FLOPs / (peak x share reached)`."""
        return flops / (self.peak[dtype] * self.efficiency)

    def memory_seconds(self, num_bytes: float) -> float:
        """`bytes / (bandwidth x share reached)`."""
        return num_bytes / (self.memory_bandwidth * self.memory_share)

    def exchange_seconds(self, exchange: Exchange, *, sharing: int) -> float:
        """`start + hops x time a hop + bytes sent / slowest line of the ring`.

        Ranks of a node follow each other. `sharing` processes share one copy of what is exchanged.
        """
        within, nodes = self._lies(exchange, sharing=sharing)
        rounds = 1 if exchange.operation in (GATHER, SCATTER) else 2
        crossings = nodes if nodes > 1 else 0
        hops = (exchange.size - 1 - crossings) * HOP_SECONDS + crossings * NODE_HOP_SECONDS
        return START_SECONDS + rounds * max(0.0, hops) + exchange.sent / self.bandwidth(within=within, nodes=nodes)

    def bandwidth(self, *, within: int, nodes: int) -> float:
        """Bytes/s of a ring over `nodes` nodes with `within` members each; other groups use the rest of the lines."""
        if nodes == 1:
            return self.nvlink * self.link_share
        lines = self.per_node if self.links_per_node is None else self.links_per_node
        return min(self.nvlink, lines * self.link * within / self.per_node) * self.link_share

    def _lies(self, exchange: Exchange, *, sharing: int) -> tuple[int, int]:
        """Members of one node, nodes: of the group that exchanges. Copies of one slice lie `sharing` ranks apart."""
        apart = sharing if exchange.group == COPIES else 1
        within = min(exchange.size, max(1, self.per_node // apart))
        return within, -(-exchange.size // within)


_HALF = (torch.bfloat16, torch.float16)


def _peaks(half: float, single: float) -> dict[torch.dtype, float]:
    return dict.fromkeys(_HALF, half) | {torch.float32: single}


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            name="A100",
            peak=_peaks(312e12, 19.5e12),
            memory_bandwidth=2.0e12,
            memory_gib=80,
            nvlink=300e9,
            link=200e9 / 8,
            links_per_node=None,
            per_node=8,
            source="NVIDIA A100 80GB SXM data sheet (NVLink: 600 GB/s both ways); a 200 Gb/s line a GPU, as DGX A100",
        ),
        Machine(
            name="H100",
            peak=_peaks(989e12, 67e12),
            memory_bandwidth=3.35e12,
            memory_gib=80,
            nvlink=450e9,
            link=400e9 / 8,
            links_per_node=None,
            per_node=8,
            source="NVIDIA H100 SXM data sheet (NVLink: 900 GB/s both ways); a 400 Gb/s line a GPU, as DGX H100",
        ),
        Machine(  # its matrix products were measured: 790 TFLOP/s
            name="H200",
            peak=_peaks(989e12, 67e12),
            memory_bandwidth=4.8e12,
            memory_gib=141,
            nvlink=450e9,
            link=400e9 / 8,
            links_per_node=None,
            per_node=8,
            source="NVIDIA H200 SXM data sheet; NVLink and lines as H100",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the person knows better than the table; None: the table's."""

    efficiency: float | None = None
    memory_gbytes: float | None = None  # GB/s
    peak_tflops: float | None = None
    nvlink_gbytes: float | None = None  # GB/s in each direction
    link_gbits: float | None = None  # Gb/s of one line
    links_per_node: int | None = None
    per_node: int | None = None


def find_machine(name: str, *, known: Known | None = None) -> Machine:
    """Raises ConfigError: no machine is called so, or a share is not one."""
    by_lower = {listed.lower(): listed for listed in MACHINES}
    if name.lower() not in by_lower:
        nearest = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"--machine {name}: not known; did you mean {by_lower[nearest]}? There are {', '.join(MACHINES)}; describe "
            "another one by the nearest with --peak-tflops, --memory-gb-s, --nvlink-gb-s and --link-gbit."
        )
    return _as_known(MACHINES[by_lower[name.lower()]], known or Known())


def _as_known(machine: Machine, known: Known) -> Machine:
    if known.efficiency is not None and not 0 < known.efficiency <= 1:
        raise ConfigError(
            f"--efficiency {known.efficiency:g}: a share of the peak is above 0 and at most 1, such as {EFFICIENCY}."
        )
    peak = machine.peak
    if known.peak_tflops is not None:
        peak = dict.fromkeys(peak, known.peak_tflops * 1e12)
    return replace(
        machine,
        peak=peak,
        efficiency=known.efficiency or machine.efficiency,
        memory_bandwidth=machine.memory_bandwidth if known.memory_gbytes is None else known.memory_gbytes * 1e9,
        nvlink=machine.nvlink if known.nvlink_gbytes is None else known.nvlink_gbytes * 1e9,
        link=machine.link if known.link_gbits is None else known.link_gbits * 1e9 / 8,
        links_per_node=known.links_per_node or machine.links_per_node,
        per_node=known.per_node or machine.per_node,
    )
