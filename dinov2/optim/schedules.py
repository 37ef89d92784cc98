"""What changes from step to step: learning rates, weight decay, teacher momentum and temperature.

In: a step number and a `Schedule`, built once from the sections `optim`, `teacher` and `train`. Out: a `StepPlan`. Pure
functions; no tables, no state, no torch, so a resumed run needs nothing but its step number.
"""

import math
from dataclasses import dataclass

from dinov2.config.lengths import lengths
from dinov2.config.schema import InitFrom, Optim, Teacher, Train


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Every value that one optimisation step uses besides its data."""

    lr: float
    last_layer_lr: float  # 0 while the prototypes are frozen
    weight_decay: float
    teacher_momentum: float
    teacher_temperature: float
    is_backbone_frozen: bool = False  # the student's backbone takes no part in the step but its forward pass
    head_lr_factor: float = 1.0  # of the heads' rate over `lr`; `last_layer_lr` has it already

    @property
    def backbone_lr(self) -> float:
        """Of the backbone, before the shares of its layers."""
        return 0.0 if self.is_backbone_frozen else self.lr

    @property
    def head_lr(self) -> float:
        """Of the heads, but for their prototypes."""
        return self.lr * self.head_lr_factor


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The whole course of a run, every length in steps."""

    total_steps: int
    warmup_steps: int
    freeze_last_layer_steps: int
    temperature_warmup_steps: int
    peak_lr: float
    final_lr: float
    weight_decay: float
    final_weight_decay: float
    momentum: float
    final_momentum: float
    warmup_temperature: float
    temperature: float
    freeze_backbone_steps: int = 0
    head_lr_factor: float = 1.0  # while the backbone is frozen


def build_schedule(
    optim: Optim, teacher: Teacher, *, train: Train, global_batch: int, init_from: InitFrom | None = None
) -> Schedule:
    """The schedule of a run whose optimiser steps see `global_batch` pictures each.

    `optim.lr` above 0 is the peak itself and wins over `optim.base_lr` with its scaling rule. Without `init_from` the
    backbone learns from the first step.
    """
    start = init_from or InitFrom()
    steps = lengths(optim, teacher, train=train)
    scaled = scaled_lr(optim.base_lr, global_batch=global_batch, rule=optim.scaling_rule)
    return Schedule(
        total_steps=steps.total,
        warmup_steps=steps.warmup,
        freeze_last_layer_steps=steps.freeze_last_layer,
        temperature_warmup_steps=steps.warmup_teacher_temp,
        peak_lr=optim.lr if optim.lr > 0 else scaled,
        final_lr=optim.min_lr,
        weight_decay=optim.weight_decay,
        final_weight_decay=optim.weight_decay_end,
        momentum=teacher.momentum_teacher,
        final_momentum=teacher.final_momentum_teacher,
        warmup_temperature=teacher.warmup_teacher_temp,
        temperature=teacher.teacher_temp,
        freeze_backbone_steps=start.freeze_backbone_steps,
        head_lr_factor=start.head_lr_factor,
    )


def schedule_at(step: int, *, schedule: Schedule) -> StepPlan:
    """The values of the step that follows `step` completed ones."""
    s = schedule
    lr = warmup_cosine(step, peak=s.peak_lr, final=s.final_lr, warmup_steps=s.warmup_steps, total_steps=s.total_steps)
    is_frozen = step < s.freeze_backbone_steps
    factor = s.head_lr_factor if is_frozen else 1.0
    return StepPlan(
        lr=lr,
        last_layer_lr=0.0 if step < s.freeze_last_layer_steps else lr * factor,
        weight_decay=cosine(step, start=s.weight_decay, end=s.final_weight_decay, num_steps=s.total_steps),
        teacher_momentum=cosine(step, start=s.momentum, end=s.final_momentum, num_steps=s.total_steps),
        teacher_temperature=teacher_temperature(step, schedule=s),
        is_backbone_frozen=is_frozen,
        head_lr_factor=factor,
    )


def teacher_temperature(step: int, *, schedule: Schedule) -> float:
    """A straight line over its warm-up, then constant."""
    if step >= schedule.temperature_warmup_steps:
        return schedule.temperature
    return linear_warmup(
        step,
        start=schedule.warmup_temperature,
        peak=schedule.temperature,
        num_steps=schedule.temperature_warmup_steps,
    )


def cosine(step: int, *, start: float, end: float, num_steps: int) -> float:
    """Half a cosine from `start` at step 0 towards `end`, which holds from `num_steps` on."""
    if step >= num_steps:
        return end
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / num_steps))


def linear_warmup(step: int, *, start: float, peak: float, num_steps: int) -> float:
    """A straight line that reaches `peak` at step `num_steps - 1`, as the public DINOv2 schedules do.

    A warm-up of a single step is that step at `start`.
    """
    if num_steps <= 1:
        return start
    return start + (peak - start) * step / (num_steps - 1)


def warmup_cosine(step: int, *, peak: float, final: float, warmup_steps: int, total_steps: int) -> float:
    """0 to `peak` over the warm-up, then a cosine to `final` at `total_steps`.

    The peak is held for two steps: the last of the warm-up and the first of the cosine.
    """
    if step < warmup_steps:
        return linear_warmup(step, start=0.0, peak=peak, num_steps=warmup_steps)
    return cosine(step - warmup_steps, start=peak, end=final, num_steps=total_steps - warmup_steps)


def scaled_lr(base_lr: float, *, global_batch: int, rule: str) -> float:
    """The peak learning rate for a batch of `global_batch` pictures; `base_lr` is the one for 1024 (256 if linear)."""
    scale = {"sqrt_wrt_1024": math.sqrt(global_batch / 1024), "linear_wrt_256": global_batch / 256, "none": 1.0}
    return base_lr * scale[rule]
