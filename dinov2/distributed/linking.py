"""Wires from every process to rank 0, apart from the process group.

In: a `World` whose process group is open. Out: this process's end, and the machine of every rank.
"""

import secrets

import torch.distributed as dist

from dinov2.distributed.wire import Link, NoLink, Spoke, Switchboard, Wire
from dinov2.distributed.words import name_places
from dinov2.distributed.world import World
from dinov2.errors import LaunchError


def connect(world: World, *, timeout_seconds: float) -> tuple[Link, dict[int, str]]:
    """This process's end and the machine of every rank.  Collective.

    Raises LaunchError, on every process alike, where one cannot reach rank 0.
    """
    if world.size == 1:
        return NoLink(), {0: world.host}
    board = Switchboard(token=secrets.token_hex(16), size=world.size) if world.is_main else None
    offers = [(board.token, board.port, world.host) if board else None]
    dist.broadcast_object_list(offers, src=0)
    assert offers[0] is not None
    token, port, main_host = offers[0]
    link: Link | None = board
    fault = ""
    if link is None:
        wire, fault = _reach([world.main_address, main_host], port, timeout_seconds=timeout_seconds)
        if wire is not None and wire.send({"token": token, "rank": world.rank}):
            link = Spoke(wire)
    told: list[tuple[str, str]] = [("", "")] * world.size
    dist.all_gather_object(told, (world.host, fault))
    hosts = {rank: host for rank, (host, _) in enumerate(told)}
    faults = {rank: fault for rank, (_, fault) in enumerate(told) if fault}
    if faults or link is None:
        raise LaunchError(
            f"{name_places(faults, hosts)} cannot reach rank 0 ({main_host}) at port {port} "
            f"({next(iter(faults.values()))}). The processes watch each other over ports that the system hands out: "
            "allow connections between the machines of a run (firewall)."
        )
    return link, hosts


def _reach(addresses: list[str], port: int, *, timeout_seconds: float) -> tuple[Wire | None, str]:
    """A connection to the first address that answers, or why there is none."""
    faults = []
    for address in dict.fromkeys(addresses):
        try:
            return Wire.connect(address, port, timeout_seconds=timeout_seconds), ""
        except OSError as error:
            faults.append(f"{address}: {error.strerror or error}")
    return None, "; ".join(faults)
