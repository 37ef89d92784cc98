"""What a run will do: steps, pictures, rates, days, and what it will leave on the disk.

In: a configuration, a `Launch`, the number of pictures and of parameters. Out: a `Plan`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from dinov2.config.lengths import lengths
from dinov2.config.schema import Config
from dinov2.forecast.launch import Launch
from dinov2.optim import Schedule, build_schedule, schedule_at

SECONDS_PER_DAY = 86_400
KNOWN_RATE = 27.8  # pictures/s on one A100: RAD-DINO's 1.44 s a step of 2,560 on 64 of them, by its model card
BYTES_PER_PARAMETER = 16  # float32: student, two moments of AdamW, teacher


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The course of a run."""

    global_batch: int
    total_steps: int
    num_pictures_seen: int
    passes: float | None  # over the data; None where there is none
    warmup_steps: int
    peak_lr: float
    peak_step: int
    final_lr: float
    freeze_last_layer_steps: int
    freeze_backbone_steps: int
    frozen_head_lr: float  # highest of the heads while the backbone is frozen; 0 where it never is
    temperature_steps: int
    temperature_at_end: float
    num_checkpoints: int  # written in all
    num_kept: int  # on the disk at the end
    checkpoint_bytes: int  # of one
    num_exports: int
    export_bytes: int  # of one
    disk_bytes: int  # of everything at the end, with one checkpoint being written
    disk_free: int | None  # where the run folder will lie; None where nobody says
    days: float | None  # at the given rate


def make_plan(
    config: Config,
    launch: Launch,
    *,
    num_pictures: int | None,
    num_parameters: int,
    rate: float | None,
    output_dir: Path | None,
) -> Plan:
    """`num_parameters` of the student; `rate` in pictures per second and process."""
    schedule = build_schedule(
        config.optim,
        config.teacher,
        train=config.train,
        global_batch=launch.global_batch,
        init_from=config.init_from,
    )
    steps = lengths(config.optim, config.teacher, train=config.train)
    seen = steps.total * launch.global_batch
    peak = min(max(steps.warmup - 1, 0), max(steps.total - 1, 0))
    written, kept = _checkpoints(config, total=steps.total)
    exports = _exports(config, total=steps.total)
    size, export = BYTES_PER_PARAMETER * num_parameters, 4 * num_parameters
    return Plan(
        global_batch=launch.global_batch,
        total_steps=steps.total,
        num_pictures_seen=seen,
        passes=seen / num_pictures if num_pictures else None,
        warmup_steps=steps.warmup,
        peak_lr=schedule_at(peak, schedule=schedule).lr,
        peak_step=peak,
        final_lr=schedule.final_lr,
        freeze_last_layer_steps=steps.freeze_last_layer,
        freeze_backbone_steps=schedule.freeze_backbone_steps,
        frozen_head_lr=_frozen_head_lr(schedule),
        temperature_steps=steps.warmup_teacher_temp,
        temperature_at_end=schedule_at(max(steps.total - 1, 0), schedule=schedule).teacher_temperature,
        num_checkpoints=written,
        num_kept=kept,
        checkpoint_bytes=size,
        num_exports=exports,
        export_bytes=export,
        disk_bytes=(kept + 1) * size + exports * export,
        disk_free=None if output_dir is None else free_bytes(output_dir),
        days=None if not rate else seen / (rate * launch.processes) / SECONDS_PER_DAY,
    )


def _frozen_head_lr(schedule: Schedule) -> float:
    """Within the warm-up the rate rises, after it it falls."""
    last = schedule.freeze_backbone_steps - 1
    if last < 0:
        return 0.0
    return schedule_at(min(last, max(schedule.warmup_steps - 1, 0)), schedule=schedule).head_lr


def free_bytes(folder: Path) -> int:
    """Of the disk on which the folder lies, or will lie."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def _checkpoints(config: Config, *, total: int) -> tuple[int, int]:
    """How many checkpoints are written, and how many of them are left at the end."""
    section = config.checkpoint
    steps = {*range(section.every_steps, total + 1, section.every_steps), total, *_judged_steps(config, total=total)}
    if section.keep_last == 0:
        return len(steps), len(steps)
    kept = set(sorted(steps)[-section.keep_last :])
    if section.keep_every_steps:
        kept |= {step for step in steps if step % section.keep_every_steps == 0}
    best = section.keep_best if section.select_by else 0
    return len(steps), min(len(steps), len(kept) + best)


def _judged_steps(config: Config, *, total: int) -> set[int]:
    """Steps whose score, a number of the monitors, decides about the checkpoint that is saved with it."""
    every = config.monitors.every_steps
    monitored = "/" in config.checkpoint.select_by  # as only the names of monitors have it
    return {*range(every, total + 1, every), total} if monitored and 0 < every <= total else set()


def _exports(config: Config, *, total: int) -> int:
    """Folders below exports: one a period, the last one, and the best."""
    every = config.evaluation.eval_period_iterations
    periods = len({*range(every, total + 1, every), total}) if every else 1
    return periods + int(bool(config.checkpoint.select_by))
