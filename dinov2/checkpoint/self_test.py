"""Whether a checkpoint reads back as what was written, value by value.

In: a checkpoint and the tensors it was written from. Out: words for the first difference on any process, or none. Reads
some tensors at a time into this process's own memory, so that neither a GPU nor the machine needs room for a second
state.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from dinov2.checkpoint.reading import read_facts, read_tensors
from dinov2.checkpoint.writer import local_part
from dinov2.errors import CheckpointError

BYTES_AT_ONCE = 2**30  # of whole tensors; a process holds its share of them


def agreed_differences(checkpoint: Path, *, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> str:
    """What differs first on any process, the same words on every process; empty where nothing does."""
    mine = _difference(checkpoint, tensors=tensors, group=group)
    if group is None:
        return mine
    told: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(told, mine, group=group)
    return next((f"process {rank}: {words}" for rank, words in enumerate(told) if words), "")


def _difference(checkpoint: Path, *, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> str:
    try:
        read_facts(checkpoint)
    except CheckpointError as error:
        return str(error)
    first = ""
    for names in some_at_a_time(tensors):
        read_back = {name: torch.empty_like(tensors[name], device="cpu") for name in names}
        try:
            read_tensors(checkpoint, into=read_back, alone=group is None, group=group)
        except CheckpointError as error:  # told by torch to every process alike
            return first or str(error)
        for name in names:
            if not first and not same_bits(local_part(tensors[name]).cpu(), local_part(read_back[name])):
                first = name
    return first


def some_at_a_time(tensors: Mapping[str, Tensor], *, num_bytes: int = BYTES_AT_ONCE) -> Iterator[list[str]]:
    """Names in groups of about so many bytes; equal on every process, since whole shapes are counted."""
    group: list[str] = []
    held = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if group and held + size > num_bytes:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal as stored: a NaN equals itself, and 0.0 is not -0.0."""
    flat = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(*flat)
