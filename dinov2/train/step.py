"""One optimisation step: micro-batches in, new weights and what happened out.

Order: forward and backward of every micro-batch, mean of the gradients over ranks, refusal of what is not finite,
clipping per sub-module, AdamW, teacher average. Nothing is changed before the refusal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.batch import Views
from dinov2.distributed import World, average_gradients, sum_over_ranks
from dinov2.errors import TrainingError
from dinov2.optim.clip import clip_gradients
from dinov2.optim.ema import update_teacher
from dinov2.optim.param_groups import apply_plan
from dinov2.optim.schedules import StepPlan
from dinov2.ssl import Losses, Networks, Objective
from dinov2.train.precision import Precision


@dataclass(frozen=True, kw_only=True)
class StepTools:
    """Everything a step works with that stays the same from step to step; `scaler` is inactive unless fp16 is used."""

    networks: Networks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    world: World
    clip_grad: float


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step did; tensors stay on the device until they are logged."""

    values: dict[str, Tensor]  # scalars of this rank, means over its micro-batches
    grad_norms: dict[str, Tensor]  # per sub-module, before clipping
    skipped: bool  # the scaler found an overflow: weights and teacher were left alone


def train_step(
    tools: StepTools, micro_batches: Iterable[Views], *, plan: StepPlan, step: int, num_micro_batches: int
) -> StepResult:
    """One step over `num_micro_batches` micro-batches.  Raises TrainingError where a loss or gradient is not finite."""
    apply_plan(tools.optimizer.param_groups, plan)
    tools.optimizer.zero_grad(set_to_none=True)
    collected: list[dict[str, Tensor]] = []
    for views in micro_batches:
        with tools.precision.autocast():
            losses = tools.objective(tools.networks, views, teacher_temperature=plan.teacher_temperature)
        values = scalars(losses)
        _refuse_non_finite(values, step=step, rank=tools.world.rank, what="the loss term")
        torch.autograd.backward(tools.scaler.scale(losses.total / num_micro_batches))
        collected.append(values)
    norms, skipped = _update(tools, plan=plan, step=step)
    return StepResult(values=_mean(collected), grad_norms=norms, skipped=skipped)


def _update(tools: StepTools, *, plan: StepPlan, step: int) -> tuple[dict[str, Tensor], bool]:
    student = tools.networks.student
    average_gradients(student.parameters(), world=tools.world)
    tools.scaler.unscale_(tools.optimizer)
    norms = clip_gradients(student, max_norm=tools.clip_grad)
    if not tools.scaler.is_enabled():
        _refuse_non_finite(norms, step=step, rank=tools.world.rank, what="the gradient of")
    scale_before = tools.scaler.get_scale()
    tools.scaler.step(tools.optimizer)
    tools.scaler.update()
    skipped = tools.scaler.get_scale() < scale_before
    if not skipped:
        update_teacher(student, tools.networks.teacher, momentum=plan.teacher_momentum)
    return norms, skipped


def scalars(losses: Losses) -> dict[str, Tensor]:
    """Every number of `losses` under the name it is logged by, detached."""
    values = {"total_loss": losses.total} | losses.terms
    values |= {f"{name}_cross_entropy": value for name, value in losses.cross_entropies.items()}
    if losses.teacher_entropy is not None and losses.teacher_marginal_entropy is not None:
        values["teacher_entropy"] = losses.teacher_entropy
        values["teacher_marginal_entropy"] = losses.teacher_marginal_entropy
    return {name: value.detach() for name, value in values.items()}


def mean_over_ranks(values: Mapping[str, Tensor], *, world: World) -> dict[str, float]:
    """Scalars as Python numbers, averaged over ranks in one exchange."""
    stacked = torch.stack([value.float() for value in values.values()])
    return dict(zip(values, (sum_over_ranks(stacked, world=world) / world.size).tolist(), strict=True))


def _mean(collected: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([values[name] for values in collected]).mean() for name in collected[0]}


def _refuse_non_finite(values: Mapping[str, Tensor], *, step: int, rank: int, what: str) -> None:
    finite = torch.stack([value.float() for value in values.values()]).isfinite()
    if finite.all():
        return
    named = [f"{name}={float(value):g}" for name, value in values.items() if not value.isfinite()]
    raise TrainingError(
        f"step {step}, rank {rank}: {what} {', '.join(named)} is not finite; weights and checkpoints are as before "
        "this step. Lower optim.base_lr, lengthen the warm-up, or set runtime.precision=fp32 to see whether the number "
        "format is the cause; the same command continues from the last checkpoint."
    )
