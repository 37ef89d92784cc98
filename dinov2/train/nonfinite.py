"""Steps whose loss or gradient is not finite: told, counted, and, where they do not end, dumped.

In: the findings of a step and the batches it was made of. Out: words that name term, rank, step and pictures; a folder
from which `dinov2 replay` makes the same step again.

The folder `RUN/nonfinite/<step>/` holds a checkpoint of everything as it was before the step (skipped steps change
nothing), the batches of every rank, and `findings.json`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dinov2.batch import Batch
from dinov2.checkpoint.store import CheckpointStore, Retention
from dinov2.config.load import to_yaml
from dinov2.data.stream import SampleStream
from dinov2.distributed import gather_values
from dinov2.errors import CheckpointError, TrainingError
from dinov2.train.run import Run, facts_of
from dinov2.train.state import named_tensors
from dinov2.train.step import Finding

FINDINGS = "findings.json"
MAX_NAMED = 6  # pictures and terms that a message names
TOTAL = "total_loss"
TENSORS = ("global_crops", "local_crops", "masks", "positions")


def describe(this: Run, findings: Sequence[Finding]) -> str:
    """What was found in the step that just ended, and the pictures behind it. Called by every rank."""
    pictures = _pictures(this, findings)
    by_place: dict[tuple[int, int | None], list[Finding]] = {}
    for finding in findings:
        by_place.setdefault((finding.rank, finding.micro_batch), []).append(finding)
    told = [_at_one_place(place, found, pictures) for place, found in by_place.items()]
    more = f"; and the same on {len(told) - MAX_NAMED} more ranks" if len(told) > MAX_NAMED else ""
    return f"step {this.step}: not finite: {'; '.join(told[:MAX_NAMED])}{more}"


def stop_over(this: Run, findings: Sequence[Finding]) -> None:
    """Writes the dump and raises TrainingError. Called by every rank."""
    told = describe(this, findings)
    folder = write_dump(this, findings)
    processes = f"torchrun --nproc-per-node {this.world.size} -m dinov2" if this.world.size > 1 else "dinov2"
    error = TrainingError(
        f"{told}. That was the {this.nonfinite_in_row}. such step in a row (runtime.max_nonfinite_steps), so the run "
        f"stops; weights are as before the first of them. To make this step again and see where it breaks: "
        f"{processes} replay {folder}\n"
        "Most often the learning rate is too high (optim.base_lr, optim.warmup_steps) or fp16 too narrow "
        "(runtime.precision=bf16). The same command continues from the last checkpoint, which is from before."
    )
    error.everywhere = True
    raise error


def write_dump(this: Run, findings: Sequence[Finding]) -> Path:
    """The state before the step, the batches of every rank, and what was found."""
    folder = this.folder.nonfinite / str(this.step)
    store = CheckpointStore(folder, retention=Retention(keep_last=0))
    step = this.step - 1
    facts = facts_of(this) | {"position": this.position - this.global_batch}
    store.save(step, tensors=named_tensors(this.tools), facts=facts, files={"config.yaml": to_yaml(this.config)})
    store.close()
    save_file(_tensors(this.batches), folder / _batches_file(this.world.rank))
    if this.world.is_main:
        listed = {"step": step, "world_size": this.world.size, "findings": [asdict(finding) for finding in findings]}
        (folder / FINDINGS).write_text(json.dumps(listed, indent=1))
    gather_values(None, world=this.world)  # every rank has written
    return folder


def read_dump(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a dump, and what was found.  Raises CheckpointError where the folder holds none."""
    try:
        found: dict[str, Any] = json.loads((folder / FINDINGS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder}: no dump of a step, for its {FINDINGS} cannot be read. Give a folder RUN/nonfinite/STEP."
        ) from error
    return folder / str(found["step"]), found


def read_batches(folder: Path, *, rank: int) -> list[Batch]:
    """The batches of a rank, one per micro-batch.  Raises CheckpointError."""
    file = folder / _batches_file(rank)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}).") from error
    count = 1 + max(int(name.split(".")[0]) for name in tensors)
    return [Batch(**{name: tensors[f"{i}.{name}"] for name in TENSORS}) for i in range(count)]  # type: ignore[arg-type]


def _batches_file(rank: int) -> str:
    return f"batches.{rank}.safetensors"


def _tensors(batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    return {f"{i}.{name}": getattr(batch, name).contiguous() for i, batch in enumerate(batches) for name in TENSORS}


def _pictures(this: Run, findings: Sequence[Finding]) -> dict[tuple[int, int | None], list[str]]:
    """Pictures by rank and micro-batch, of those places where something was found."""
    stream = SampleStream(len(this.pictures), seed=this.config.train.seed)
    mine = [[int(position) for position in batch.positions] for batch in this.batches]
    wanted = {(finding.rank, finding.micro_batch) for finding in findings if finding.micro_batch is not None}
    found: dict[tuple[int, int | None], list[str]] = {}
    for rank, batches in enumerate(gather_values(mine, world=this.world)):
        for number, positions in enumerate(batches):
            if (rank, number) in wanted:
                rows = (this.pictures.row(stream.row(position)) for position in positions)
                found[rank, number] = [str(row.get("image_id") or row["image"]) for row in rows]
    return found


def _at_one_place(
    place: tuple[int, int | None], findings: Sequence[Finding], pictures: dict[tuple[int, int | None], list[str]]
) -> str:
    rank, micro_batch = place
    terms = [finding for finding in findings if finding.name.endswith("_loss") and finding.name != TOTAL]
    named = _shortened([f"{finding.name}={finding.value:g}" for finding in terms or findings])
    if micro_batch is None:
        return f"the gradient (over all ranks) of {named}"
    return f"rank {rank}: the loss term {named}, pictures {_shortened(pictures[place])}"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def count(this: Run, findings: Sequence[Finding]) -> Iterator[str]:
    """Keeps the run's counters, and says what was skipped; `stop_over` is for the caller to call."""
    if not findings:
        this.nonfinite_in_row = 0
        return
    this.num_nonfinite += 1
    this.nonfinite_in_row += 1
    yield f"{describe(this, findings)}. The step is skipped."
