"""Saves a small training state as the public trainer does: FSDP of the first kind, a file per rank, local shards.

In: a folder. Out: in it a folder per case, with `model_0000999.rank_N.pth` and `whole.pt`, what was sharded. Run as
`python -m tests.models.sharded_run FOLDER`; three processes serve all cases.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, StateDictType
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer

ARCHITECTURE = {
    "img_size": 42,
    "patch_size": 14,
    "embed_dim": 20,
    "depth": 4,
    "num_heads": 2,
    "init_values": 1.0,
    "num_register_tokens": 3,
}
HEAD = {"in_dim": 20, "out_dim": 23, "hidden_dim": 9, "bottleneck_dim": 5}
ITERATION = 999


@dataclass(frozen=True)
class Case:
    """How a state is sharded."""

    ranks: int
    original: bool  # whether FSDP keeps the original parameters: the public trainer's newer releases do
    chunks: int  # of blocks; with 0 the whole backbone is one unit
    strategy: str = "SHARD_GRAD_OP"

    @property
    def name(self) -> str:
        return f"{self.ranks}-{'original' if self.original else 'flat'}-{self.chunks}-{self.strategy}"


CASES = (
    Case(2, original=False, chunks=2, strategy="FULL_SHARD"),
    Case(3, original=False, chunks=2),
    Case(3, original=True, chunks=2),
    Case(2, original=True, chunks=0),
    Case(1, original=True, chunks=2),
    Case(2, original=True, chunks=2, strategy="NO_SHARD"),
)
RANKS = 3


class BlockChunk(nn.ModuleList):
    """The unit that the public trainer wraps."""


class Centred(nn.Module):
    """A loss with its centre."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.center: Tensor
        self.register_buffer("center", torch.randn(shape))


def backbone(*, chunks: int) -> nn.Module:
    """Our network with the public nesting: `blocks.<chunk>.<index>`, the places of other chunks' blocks left empty."""
    vit = DinoVisionTransformer(**ARCHITECTURE)
    if chunks:
        blocks = list(vit.blocks)
        size = len(blocks) // chunks
        vit.blocks = nn.ModuleList(
            BlockChunk([*([nn.Identity()] * first), *blocks[first : first + size]])
            for first in range(0, len(blocks), size)
        )
    return vit


def training_state(*, chunks: int) -> nn.Module:
    """Student, teacher and centres, every number drawn."""
    state = nn.Module()
    for side in ("student", "teacher"):
        parts = {"backbone": backbone(chunks=chunks), "dino_head": DINOHead(**HEAD), "ibot_head": DINOHead(**HEAD)}
        state.add_module(side, nn.ModuleDict(parts))
    state.dino_loss, state.ibot_patch_loss = Centred((1, 23)), Centred((1, 1, 23))
    for parameter in state.parameters():
        nn.init.normal_(parameter)
    return state


def save(case: Case, *, folder: Path, group: dist.ProcessGroup) -> None:
    """The part of one process."""
    torch.manual_seed(0)
    state = training_state(chunks=case.chunks)
    if dist.get_rank() == 0:
        torch.save(state.state_dict(), folder / "whole.pt")
    for side in (state.student, state.teacher):
        for name, part in side.items():
            side[name] = FullyShardedDataParallel(
                part,
                process_group=group,
                sharding_strategy=ShardingStrategy[case.strategy],
                device_id=torch.device("cpu"),
                use_orig_params=case.original,
                auto_wrap_policy=ModuleWrapPolicy({BlockChunk}),
            )
    with FullyShardedDataParallel.state_dict_type(state, StateDictType.LOCAL_STATE_DICT):
        model = state.state_dict()
    rate = np.float64(1e-3)  # the public trainer's schedules are numpy's
    saved = {"model": model, "optimizer": {"param_groups": [{"lr": rate}]}, "iteration": ITERATION}
    torch.save(saved, folder / f"model_{ITERATION:07d}.rank_{dist.get_rank()}.pth")


def serve(rank: int, where: str) -> None:
    """One process, through all cases."""
    dist.init_process_group("gloo", init_method=f"file://{where}/meeting", rank=rank, world_size=RANKS)
    groups = {number: dist.new_group(list(range(number))) for number in range(1, RANKS + 1)}
    for case in CASES:
        folder = Path(where) / case.name
        folder.mkdir(exist_ok=True)
        if rank < case.ranks:
            save(case, folder=folder, group=groups[case.ranks])
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(serve, args=(sys.argv[1],), nprocs=RANKS, start_method="fork")
