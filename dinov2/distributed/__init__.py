"""Which process this is, and what it exchanges with the others."""

from dinov2.distributed.reduce import agree, average_gradients, broadcast_module, max_over_ranks, sum_over_ranks
from dinov2.distributed.world import World, open_world, read_world

__all__ = [
    "World",
    "agree",
    "average_gradients",
    "broadcast_module",
    "max_over_ranks",
    "open_world",
    "read_world",
    "sum_over_ranks",
]
