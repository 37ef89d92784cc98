"""Which process this is, what it exchanges with the others, and how networks lie over all of them."""

from dinov2.distributed.host_memory import keep_freed_memory
from dinov2.distributed.reduce import (
    agree_on,
    from_main,
    gather_rows,
    gather_values,
    max_over_ranks,
    sum_over_ranks,
)
from dinov2.distributed.shard import Layout, Meshes, gather_to_main, let_go, send_from_main, shard_part
from dinov2.distributed.world import World, open_world, read_world

__all__ = [
    "Layout",
    "Meshes",
    "World",
    "agree_on",
    "from_main",
    "gather_rows",
    "gather_to_main",
    "gather_values",
    "keep_freed_memory",
    "let_go",
    "max_over_ranks",
    "open_world",
    "read_world",
    "send_from_main",
    "shard_part",
    "sum_over_ranks",
]
