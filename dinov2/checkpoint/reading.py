"""Checkpoints on disk, seen from outside: facts, tensors, and whether all of it is there.

In: `RUN`, `RUN/checkpoints/STEP`, `RUN/checkpoints/latest` or `.../best`. Out: plain facts, filled tensors, or one
CheckpointError. Nothing here writes or removes, so all of it works on the folder of a running run.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from dinov2.checkpoint.faults import as_checkpoint_error
from dinov2.checkpoint.files import FACTS
from dinov2.errors import CheckpointError

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # reading alone is meant

LATEST, BEST = "latest", "best"  # text files beside the checkpoints that hold a step
MAX_LISTED = 10


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The plain facts that were saved with a checkpoint.  Raises CheckpointError where the folder holds none."""
    try:
        facts: dict[str, Any] = json.loads((checkpoint / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: not a checkpoint of this package ({error}). Expected RUN/checkpoints/STEP."
        ) from error
    return facts


def read_metadata(checkpoint: Path) -> Metadata:
    """torch's own account of which tensor lies where.  Raises CheckpointError."""
    try:
        return dcp.FileSystemReader(checkpoint).read_metadata()
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        raise CheckpointError(
            f"{checkpoint}: the list of its tensors (.metadata) cannot be read ({type(error).__name__}: {error}). "
            "Use another checkpoint of the run: dinov2 checkpoint ls RUN."
        ) from error


def tensor_metadata(checkpoint: Path) -> dict[str, TensorStorageMetadata]:
    """Shape and number format of every tensor, by name."""
    stored = read_metadata(checkpoint).state_dict_metadata
    return {name: kind for name, kind in stored.items() if isinstance(kind, TensorStorageMetadata)}


def tensor_names(checkpoint: Path) -> frozenset[str]:
    """Names of the tensors in a checkpoint."""
    return frozenset(tensor_metadata(checkpoint))


def load_tensors(checkpoint: Path, *, into: Mapping[str, Tensor]) -> None:
    """Fills the given tensors in place from a checkpoint that was written by any number of processes.

    Plain tensors are filled whole, DTensors with this process's shard; called by every process of the run, if there are
    several. Raises CheckpointError where one is absent or has another shape (both shapes are named).
    """
    stored = tensor_metadata(checkpoint)
    faults = []
    for name, tensor in into.items():
        if name not in stored:
            faults.append(f"{name}: absent from the checkpoint, {list(tensor.shape)} in this run")
        elif stored[name].size != tensor.shape:
            faults.append(f"{name}: {list(stored[name].size)} in the checkpoint, {list(tensor.shape)} in this run")
    if faults:
        shown = "\n  ".join(faults[:MAX_LISTED])
        more = f"\n  ... and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise CheckpointError(
            f"{checkpoint}: {len(faults)} tensors do not fit this run:\n  {shown}{more}\n"
            "Use the configuration that wrote it (config.yaml in the run folder), or another --output-dir."
        )
    read_tensors(checkpoint, into=into, alone=not dist.is_initialized())


def read_tensors(
    checkpoint: Path, *, into: Mapping[str, Tensor], alone: bool, group: dist.ProcessGroup | None = None
) -> None:
    """Fills tensors that are known to fit; `alone`: this process only, whatever others do.  Raises CheckpointError."""
    with as_checkpoint_error(f"{checkpoint}: the checkpoint cannot be read"):
        dcp.load(dict(into), checkpoint_id=checkpoint, process_group=group, no_dist=alone)


def what_is_wrong(checkpoint: Path) -> str | None:
    """Words for what a look at the files finds missing, or None; no tensor is read.

    Sound means: facts and metadata can be read, and every file is there with the size it was written with.
    """
    try:
        facts = read_facts(checkpoint)
        stored = read_metadata(checkpoint)
    except CheckpointError as error:
        return str(error)
    least = dict.fromkeys(facts.get("files", {}), 0)
    for place in (stored.storage_data or {}).values():
        least[place.relative_path] = max(least.get(place.relative_path, 0), place.offset + place.length)
    for name, num_bytes in sorted(least.items()):
        try:
            size = (checkpoint / name).stat().st_size
        except OSError as error:
            return f"{checkpoint}: {name} cannot be found ({error.strerror})"
        written = facts.get("files", {}).get(name, {}).get("bytes", size)
        if size != written or size < num_bytes:
            return f"{checkpoint}: {name} has {size:,} bytes, {max(written, num_bytes):,} were written"
    return None


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in `RUN/checkpoints`, ascending: folders that bear a number and hold facts."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / FACTS).is_file())


def newest_sound(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of `RUN/checkpoints` that is all there, and words for each newer one that is not."""
    passed_over: list[str] = []
    for step in reversed(steps_in(folder)):
        wrong = what_is_wrong(folder / str(step))
        if wrong is None:
            return folder / str(step), passed_over
        passed_over.append(wrong)
    return None, passed_over


def find_checkpoint(path: Path) -> Path:
    """`RUN` (its newest checkpoint), `RUN/checkpoints/STEP`, `.../latest` or `.../best` -> the checkpoint's folder.

    Raises CheckpointError where there is none, and where the newest of a run is not all there: to go on with an
    older one is for the user to decide.
    """
    checkpoint = locate_checkpoint(path)
    if checkpoint == path or (wrong := what_is_wrong(checkpoint)) is None:
        return checkpoint
    sound, _ = newest_sound(checkpoint.parent)
    instead = f"The newest that is all there is {sound}." if sound else "None of this run is all there."
    raise CheckpointError(f"{wrong}\n{instead}")


def locate_checkpoint(path: Path) -> Path:
    """As `find_checkpoint`, but whole or not."""
    if (path / FACTS).is_file():
        return path
    if path.name in (LATEST, BEST) and path.is_file():
        return path.parent / read_pointer(path)
    for folder in (path / "checkpoints", path):
        if steps := steps_in(folder):
            return folder / str(steps[-1])
    raise CheckpointError(
        f"{path}: no checkpoint here. Give a run folder of `dinov2 train`, or RUN/checkpoints/STEP, "
        "RUN/checkpoints/latest or RUN/checkpoints/best."
    )


def checkpoints_folder(path: Path) -> Path:
    """`RUN` or `RUN/checkpoints` -> `RUN/checkpoints`.  Raises CheckpointError."""
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not folder.is_dir() or (folder / FACTS).is_file():
        raise CheckpointError(f"{path}: no run folder. Give the --output-dir of a `dinov2 train`.")
    return folder


def read_pointer(path: Path) -> str:
    """The step that `latest` or `best` holds.  Raises CheckpointError."""
    try:
        text = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Give RUN/checkpoints/STEP instead.") from error
    if not text.isdigit():
        raise CheckpointError(f"{path}: holds {text[:40]!r}, expected a step. Give RUN/checkpoints/STEP instead.")
    return text
