"""What only the run knows of itself, for the cards of its exports.

In: the pictures in use, the processes, a `Run`. Out: plain values that go into every checkpoint, so that an export made
of it later says the same: counts of the pictures, the settings they were preprocessed with, devices, time, scores.
"""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from dinov2.distributed import World, gather_values
from dinov2.manifest import Manifest

RECORD = "preprocess.json"  # `dinov2 preprocess` writes it beside its manifest
OF_A_CONVERSION = r"(^|/)images/[0-9a-f]{2}/[^/]+$"  # how it names a picture, from the folder of that record
NOT_SAID = "(not said)"
GROUPS = ("dataset", "view", "split")
MAX_GROUPS = 100  # values of a column that are listed; more are no groups
CPU_INFO = Path("/proc/cpuinfo")


@dataclass
class About:
    """What stays the same from step to step, and what is counted on."""

    fixed: dict[str, Any]
    seconds_before: float = 0.0  # of earlier processes of this run, up to the checkpoint that was continued
    scores: dict[str, float | None] = field(default_factory=dict)  # of the monitors, when they last looked
    scores_step: int | None = None
    _started: float = field(default_factory=time.monotonic)

    def plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        seconds = self.seconds_before + time.monotonic() - self._started
        scored = {"scores": dict(self.scores), "scores_step": self.scores_step} if self.scores else {}
        return self.fixed | {"wall_seconds": round(seconds, 1)} | scored

    def judged(self, step: int, scores: Mapping[str, float]) -> None:
        """The monitors have looked."""
        self.scores = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        self.scores_step = step

    def continue_from(self, facts: Mapping[str, Any]) -> None:
        """Goes on where a checkpoint was; one of an older version knows nothing of this."""
        before = facts.get("about") or {}
        self.seconds_before = float(before.get("wall_seconds", 0.0))
        self.scores, self.scores_step = dict(before.get("scores", {})), before.get("scores_step")
        self._started = time.monotonic()


def about_run(pictures: Manifest, *, world: World) -> About:
    """Called by every process; only the main one looks at the pictures' table, for it alone writes."""
    names = gather_values(device_name(world.device), world=world)
    hardware = {"devices": list(dict.fromkeys(names)), "world_size": world.size}
    if not world.is_main:
        return About({"hardware": hardware})
    settings, note = preprocessing_of(pictures)
    noted = {"preprocessing_note": note} if note else {}
    return About({"data": counts_of(pictures), "hardware": hardware, "preprocessing": settings} | noted)


def without_patients(pictures: Manifest) -> Manifest:
    """The table as a training needs it: every process keeps it in memory, and who a patient is was only counted."""
    table = pictures.table
    column = table.column_names.index("patient")
    return Manifest(table.set_column(column, "patient", pa.nulls(table.num_rows, pa.string())), pictures.root)


def counts_of(pictures: Manifest) -> dict[str, Any]:
    """How many pictures, by dataset, view and split where they are told apart, and of how many known patients."""
    table = pictures.table
    counts: dict[str, Any] = {"pictures": len(pictures)}
    for name in GROUPS:
        found = {row["values"]: row["counts"] for row in pc.value_counts(table.column(name)).to_pylist()}
        if set(found) != {None} and len(found) <= MAX_GROUPS:
            ordered = sorted(found.items(), key=lambda item: (-item[1], str(item[0])))
            counts[f"by_{name}"] = {NOT_SAID if value is None else str(value): count for value, count in ordered}
    known = table.filter(pc.is_valid(table.column("patient")))
    if known.num_rows:
        counts["patients"] = known.group_by(["dataset", "patient"]).aggregate([]).num_rows
        counts["pictures_of_known_patients"] = known.num_rows
    return counts


def preprocessing_of(pictures: Manifest) -> tuple[dict[str, Any], str]:
    """The settings that all pictures were made with, as `preprocess.json` has them; else {} and the reason.

    Pictures of several conversions (shares of one, or several merged) count where their settings are equal.
    """
    images = pictures.table.column("image")
    ours = pc.match_substring_regex(images, OF_A_CONVERSION)
    if not pc.all(ours).as_py():
        return {}, f"not all pictures are those of a `dinov2 preprocess`, so no {RECORD} speaks for them"
    folders = pc.unique(pc.replace_substring_regex(images, pattern=OF_A_CONVERSION, replacement="")).to_pylist()
    records = [_settings(pictures.root / folder / RECORD) for folder in sorted(folders)]
    if any(settings is None for settings in records):
        return {}, f"no readable {RECORD} beside the pictures"
    if any(settings != records[0] for settings in records):
        return {}, f"the pictures are of {len(records)} conversions with different settings"
    return records[0] or {}, ""


def device_name(device: torch.device) -> str:
    """What this process computes on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return next(_cpu_models(), "") or platform.processor() or platform.machine()


def _settings(record: Path) -> dict[str, Any] | None:
    try:
        settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None


def _cpu_models() -> Iterator[str]:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            yield value.strip()
