"""Whether everything in a checkpoint can be trusted: every byte is read.

In: a checkpoint's folder. Out: one line for each fault. Files are compared with the SHA-256 of what was written; every
tensor is read and looked through for values that are not finite; shapes are compared with the configuration.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dinov2.checkpoint.contents import bytes_of, expected_shapes
from dinov2.checkpoint.files import FACTS
from dinov2.checkpoint.reading import read_facts, read_tensors, tensor_metadata
from dinov2.checkpoint.self_test import some_at_a_time
from dinov2.errors import CheckpointError, ConfigError

BYTES_AT_ONCE = 2**28
CHUNK_BYTES = 2**22
Advance = Callable[[int], None]  # is told how many more bytes were looked at


def bytes_to_look_at(checkpoint: Path) -> int:
    """Of files to hash and tensors to read.  Raises CheckpointError where facts or metadata cannot be read."""
    files = read_facts(checkpoint).get("files", {})
    listed = sum(one["bytes"] for one in files.values())
    return int(listed + sum(bytes_of(one) for one in tensor_metadata(checkpoint).values()))


def faults_in(checkpoint: Path, *, advance: Advance) -> Iterator[str]:
    """Every fault, as it is found.

    Raises CheckpointError where facts or metadata cannot be read, and where the run removed the checkpoint meanwhile.
    """
    facts, stored = read_facts(checkpoint), tensor_metadata(checkpoint)
    found = [
        *_file_faults(checkpoint, facts.get("files"), advance=advance),
        *_shape_faults(facts, stored),
        *_tensor_faults(checkpoint, stored, advance=advance),
    ]
    if found and not (checkpoint / FACTS).is_file():
        raise CheckpointError(
            f"{checkpoint}: was removed while it was read; a run keeps only what checkpoint.keep_* say. "
            "Look at a newer one: dinov2 checkpoint ls RUN."
        )
    yield from found


def _file_faults(checkpoint: Path, files: Mapping[str, Any] | None, *, advance: Advance) -> Iterator[str]:
    if files is None:
        yield f"{FACTS} lists no files: written by an earlier version, so bytes cannot be compared"
        return
    for name, written in files.items():
        digest, size = hashlib.sha256(), 0
        try:
            with (checkpoint / name).open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    advance(len(chunk))
        except OSError as error:
            yield f"{name}: cannot be read ({error.strerror})"
            continue
        if size != written["bytes"]:
            yield f"{name}: {size:,} bytes, {written['bytes']:,} were written"
        elif digest.hexdigest() != written["sha256"]:
            yield f"{name}: its bytes are not those that were written (SHA-256 {digest.hexdigest()[:12]}...)"


def _shape_faults(facts: Mapping[str, Any], stored: Mapping[str, TensorStorageMetadata]) -> Iterator[str]:
    for name, one in stored.items():
        covered = sum(math.prod(chunk.sizes) for chunk in one.chunks)
        if covered != math.prod(one.size):
            yield f"{name}: {covered:,} of {math.prod(one.size):,} values were written"
    if "config" not in facts:
        yield f"{FACTS}: no configuration, so shapes cannot be compared"
        return
    try:
        expected = expected_shapes(facts)
    except ConfigError as error:
        yield f"{FACTS}: shapes cannot be compared ({error})"
        return
    for name, shape in expected.items():
        if name not in stored:
            yield f"{name}: absent, {list(shape)} by its configuration"
        elif stored[name].size != shape:
            yield f"{name}: {list(stored[name].size)}, {list(shape)} by its configuration"
    for name in stored.keys() - expected.keys():
        yield f"{name}: unknown to its configuration"


def _tensor_faults(checkpoint: Path, stored: Mapping[str, TensorStorageMetadata], *, advance: Advance) -> Iterator[str]:
    shaped = {name: torch.empty(one.size, dtype=one.properties.dtype, device="meta") for name, one in stored.items()}
    for names in some_at_a_time(shaped, num_bytes=BYTES_AT_ONCE):
        tensors = {name: torch.empty_like(shaped[name], device="cpu") for name in names}
        try:
            read_tensors(checkpoint, into=tensors, alone=True)
        except CheckpointError:
            unreadable = dict(_unreadable(checkpoint, tensors))  # one by one, to name them
            yield from (f"{name}: cannot be read ({words})" for name, words in unreadable.items())
            tensors = {name: tensor for name, tensor in tensors.items() if name not in unreadable}
        for name, tensor in tensors.items():
            if (tensor.is_floating_point() or tensor.is_complex()) and not tensor.isfinite().all():
                count = int((~tensor.isfinite()).sum())
                yield f"{name}: {count:,} of {tensor.numel():,} values are not finite"
        advance(sum(bytes_of(stored[name]) for name in names))


def _unreadable(checkpoint: Path, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    for name, tensor in tensors.items():
        try:
            read_tensors(checkpoint, into={name: tensor}, alone=True)
        except CheckpointError as error:
            yield name, str(error).removeprefix(f"{checkpoint}: the checkpoint cannot be read: ")
