"""The step in each of its forms, what it costs in arithmetic, and how much memory it takes.

In: a `Case` and a `Form`. Out: a function that does one step; FLOPs; bytes, measured in a process of its own.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dinov2.batch import Views
from dinov2.bench.case import Case, Form, config_of, random_views
from dinov2.bench.ceilings import settle
from dinov2.bench.machine import peak_memory
from dinov2.bench.plain_step import Masked, PlainStep, find_masked
from dinov2.bench.resident import resident_now
from dinov2.config.schema import Config
from dinov2.distributed import World, keep_freed_memory
from dinov2.errors import Dinov2Error
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.flops import step_flops, total
from dinov2.optim.schedules import StepPlan, build_schedule, schedule_at
from dinov2.ssl.networks import needed_heads
from dinov2.ssl.precision import choose_precision
from dinov2.train.build import build_tools, random_networks
from dinov2.train.step import train_step

Step = Callable[[Views, int], Any]
"""One step on given views, at a step number."""

OUT_OF_MEMORY = "out of memory"
STEPS_FOR_MEMORY = 2  # after the first, gradients and the optimiser's state are there
PICTURES_TO_COUNT = 8  # whose FLOPs are counted; all but a trifle (KoLeo) grows in proportion
TEMPERATURE = 0.05  # of the teacher, where no value matters


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Memory of a step; on a CPU resident memory, Python and its libraries included."""

    bytes: float | None  # the highest there was; None where it did not fit
    before: float  # what the process held before there were networks
    reserved: float | None  # on a GPU: what torch's allocator had taken
    reason: str = ""  # why there is no number


def build_form(form: Form, config: Config, *, device: torch.device) -> Step:
    """A function that does one step of a form on given views.

    Raises:
        ConfigError: the form cannot run on this machine.
    """
    global_batch = config.train.batch_size_per_gpu
    schedule = build_schedule(config.optim, config.teacher, train=config.train, global_batch=global_batch)
    do = _ours(config, device=device) if form.name == "ours" else _plain(config, device=device)
    return lambda views, step: do(views, schedule_at(step, schedule=schedule))


def _ours(config: Config, *, device: torch.device) -> Callable[[Views, StepPlan], Any]:
    tools = build_tools(config, world=World(rank=0, size=1, local_rank=0, device=device))
    return lambda views, plan: train_step(tools, [views], plan=plan, num_micro_batches=1)


def _plain(config: Config, *, device: torch.device) -> Callable[[Views, StepPlan], Any]:
    """The same networks under a plain step; the optimiser that comes with them, and its state, are let go."""
    tools = build_tools(config, world=World(rank=0, size=1, local_rank=0, device=device))
    plain = PlainStep(
        tools.networks,
        precision=tools.precision,
        clip_grad=config.optim.clip_grad,
        loss_scaling=tools.precision.needs_scaler and config.compute_precision.grad_scaler,
    )
    return lambda views, plan: plain(views, plan=plan)


def flops_per_picture(case: Case) -> float:
    """FLOPs of a forward and a backward pass for one picture, each product counted once.

    Counted by torch on tensors without memory, with attention as plain products; padding rows and what is computed
    again for the backward pass are not in it, so that it is the same for every form.
    """
    device = torch.device("cpu")
    form = Form(precision="fp32", attention="sdpa", compile="never", checkpointing="none")
    config = config_of(replace(case, batch_size=PICTURES_TO_COUNT), form, device=device)
    views = random_views(config, device=device)
    masked = find_masked(views.masks)
    parts = tuple(needed_heads(dino=config.dino, ibot=config.ibot))
    precision = choose_precision(
        "fp32", config.compute_precision, parts=("backbone", *parts), device=device, sharded=False
    )
    with torch.device("meta"):
        networks = random_networks(config).train()
    with FakeTensorMode() as no_values, sdpa_kernel(SDPBackend.MATH):  # products that the counter knows
        _forget_values(networks)
        views = Views(**{name: no_values.from_tensor(tensor) for name, tensor in vars(views).items()})
        masked = Masked(index=no_values.from_tensor(masked.index), weight=no_values.from_tensor(masked.weight))
        plain = PlainStep(networks, precision=precision, pad=False, clip_grad=0.0, loss_scaling=False)
        with FlopCounterMode(display=False) as counter:
            terms = plain.terms(views, masked, temperature=TEMPERATURE)
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
    return float(counter.get_total_flops()) / PICTURES_TO_COUNT


def flops_left_out(case: Case) -> float:
    """Of those, what ours does not compute: for tokens that no loss reads, the last block's part behind attention."""
    form = Form(precision="fp32", attention="sdpa", compile="never", checkpointing="none")
    config = config_of(replace(case, batch_size=PICTURES_TO_COUNT), form, device=torch.device("cpu"))
    masked = len(find_masked(random_views(config, device=torch.device("cpu")).masks).index)
    dims = dimensions_of(config, pictures=PICTURES_TO_COUNT, processes=1, on_gpu=False, masked=float(masked))
    whole = total(step_flops(replace(dims, only_read=False)))
    return (whole - total(step_flops(dims))) / PICTURES_TO_COUNT


def peak_of(case: Case, form: Form, *, device: torch.device) -> Peak:
    """Memory of a few steps, in a process of their own."""
    try:
        peak: Peak = alone(_peak, case, form, device)
    except BrokenProcessPool:  # where a system runs out of memory, it ends the process without a word
        return Peak(bytes=None, before=0.0, reserved=None, reason=OUT_OF_MEMORY)
    return peak


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """`work(*given)` in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *given).result()


def _forget_values(module: nn.Module) -> None:
    """Parameters without memory that say to lie on the CPU; called inside the mode that makes such."""
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(torch.empty(parameter.shape), requires_grad=parameter.requires_grad))


def _peak(case: Case, form: Form, device: torch.device) -> Peak:
    keep_freed_memory(device)
    before = _held(device)
    try:
        config = config_of(case, form, device=device)
        views, do = random_views(config, device=device), build_form(form, config, device=device)
        for step in range(STEPS_FOR_MEMORY):
            do(views, step)
        settle(device)
    except torch.OutOfMemoryError:
        return Peak(bytes=None, before=before, reserved=None, reason=OUT_OF_MEMORY)
    except Dinov2Error as error:
        return Peak(bytes=None, before=before, reserved=None, reason=str(error))
    reserved = float(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None
    return Peak(bytes=peak_memory(device), before=before, reserved=reserved)


def _held(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    return float(resident_now())
