"""Where a finished network lies: whole on every process, or in shards. The only home of FSDP.

In: modules that know nothing of it, and for each a `Layout`. Out: the same modules, whose parameters are shards
(`DTensor`) under the same names; they gather themselves where they compute and scatter their gradients, already
averaged over all processes.

A module may be on the meta device: then no process ever holds more of it than its shards and what computes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from dinov2.distributed.world import World
from dinov2.errors import LaunchError

STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD")
REGATHERS = ("FULL_SHARD", "HYBRID_SHARD")  # let go of weights after the forward pass and gather them again


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one part lies over the processes, and its number formats while it computes and is averaged."""

    strategy: str
    param_dtype: torch.dtype
    reduce_dtype: torch.dtype
    buffer_dtype: torch.dtype


class Meshes:
    """The processes as each strategy sees them; every process makes the same ones in the same order."""

    def __init__(self, world: World, *, shard_group_size: int | None) -> None:
        self._world = world
        self._group_size = shard_group_size or world.local_size
        self._made: dict[tuple[int, ...], DeviceMesh] = {}

    def of(self, strategy: str) -> DeviceMesh:
        """One dimension to shard over; or two: copies, and within each the processes that share it.

        Raises LaunchError where the processes cannot be split into equal groups.
        """
        size = self._world.size
        if strategy == "NO_SHARD":
            return self._mesh((size, 1))
        if strategy == "HYBRID_SHARD":
            if size % self._group_size:
                raise LaunchError(
                    f"HYBRID_SHARD: {size} processes cannot be split into groups of {self._group_size}. "
                    "Set runtime.shard_group_size to a number that divides them, or take FULL_SHARD."
                )
            return self._mesh((size // self._group_size, self._group_size))
        return self._mesh((size,))

    def _mesh(self, shape: tuple[int, ...]) -> DeviceMesh:
        if shape not in self._made:
            names = ("shard",) if len(shape) == 1 else ("copy", "shard")
            self._made[shape] = init_device_mesh(self._world.device.type, shape, mesh_dim_names=names)
        return self._made[shape]


def shard_part(part: nn.Module, *, units: Sequence[nn.Module], layout: Layout, meshes: Meshes) -> None:
    """Shards `part` in place; each of `units` (the blocks, in the order in which they run) gathers by itself.

    While one unit computes, the next one in line is gathered already.
    """
    # A backbone gives out views of its normed tokens; nothing here writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = meshes.of(layout.strategy)
    policy = MixedPrecisionPolicy(
        param_dtype=layout.param_dtype, reduce_dtype=layout.reduce_dtype, cast_forward_inputs=True
    )
    for module in (*units, part):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=layout.strategy in REGATHERS)
    sharded = [cast(FSDPModule, unit) for unit in units]
    for before, after in pairwise(sharded):
        before.set_modules_to_forward_prefetch([after])
        after.set_modules_to_backward_prefetch([before])
    for buffer in part.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(layout.buffer_dtype)


def let_go(module: nn.Module) -> None:
    """Frees the gathered weights of every sharded module below, so that the next pass gathers what they are then.

    A network that is never differentiated keeps them otherwise, and would compute with old ones.
    """
    for child in module.modules():
        if isinstance(child, FSDPModule):
            child.reshard()


def send_from_main(module: nn.Module, full: Mapping[str, Tensor] | None, *, world: World) -> None:
    """Fills a module from whole tensors that rank 0 alone holds (`full`; None elsewhere), a tensor at a time."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=world.size > 1)
    set_model_state_dict(module, dict(full or {}), options=options)


def gather_to_main(module: nn.Module, *, world: World) -> dict[str, Tensor]:
    """Whole tensors on the CPU of rank 0; empty on the others. Called by every process."""
    if world.size == 1:
        return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(module, options=options)
    return state if world.is_main else {}
