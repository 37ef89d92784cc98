"""How weights move: schedules, parameter groups, clipping, and the teacher's moving average.

In: a step number; modules and their gradients. Out: a `StepPlan`; groups for the optimiser; norms; moved weights.
"""

from dinov2.optim.adamw import build_adamw
from dinov2.optim.clip import clip_gradients
from dinov2.optim.ema import update_teacher
from dinov2.optim.param_groups import ParameterSettings, apply_plan, build_param_groups, parameter_settings
from dinov2.optim.schedules import Schedule, StepPlan, build_schedule, schedule_at

__all__ = [
    "ParameterSettings",
    "Schedule",
    "StepPlan",
    "apply_plan",
    "build_adamw",
    "build_param_groups",
    "build_schedule",
    "clip_gradients",
    "parameter_settings",
    "schedule_at",
    "update_teacher",
]
