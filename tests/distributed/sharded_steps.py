"""A few training steps on given pictures, on any number of processes; what comes out as plain tensors.

Every process makes the batch of all and takes its part, so any number of processes sees the same pictures.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dinov2.batch import Views
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World, gather_to_main
from dinov2.optim.schedules import StepPlan
from dinov2.train.build import build_tools
from dinov2.train.start import start_weights
from dinov2.train.step import StepTools, logged_values, train_step

TINY = (
    "student={arch: vit_custom, patch_size: 8, embed_dim: 32, depth: 3, num_heads: 2, layerscale: 1.0}",
    "student.drop_path_rate=0",
    "crops={global_crops_size: 32, local_crops_size: 16, local_crops_number: 2}",
    "dino={head_n_prototypes: 48, head_hidden_dim: 32, head_bottleneck_dim: 16, koleo_over_all_processes: true}",
    "ibot={separate_head: true, head_n_prototypes: 40, head_hidden_dim: 32, head_bottleneck_dim: 16}",
    "optim.clip_grad=0.05",
    "runtime={precision: fp32, device: cpu}",
)
PLAN = StepPlan(lr=2e-3, last_layer_lr=2e-3, weight_decay=0.1, teacher_momentum=0.8, teacher_temperature=0.07)
NUM_PICTURES = 8
PARTS = ("backbone", "dino_head", "ibot_head")


def config_of(*words: str) -> Config:
    return load_config(None, overrides=[*TINY, *words]).config


def with_strategy(name: str) -> tuple[str, ...]:
    return tuple(
        f"compute_precision.{side}.{part}.sharding_strategy={name}" for part in PARTS for side in ("student", "teacher")
    )


def views_of(step: int, *, world: World, unmasked: int = 0) -> Views:
    """This process's part of the batch; the first `unmasked` pictures of all have no masked patch."""
    generator = torch.Generator().manual_seed(step)
    crops = torch.randn(2, NUM_PICTURES, 3, 32, 32, generator=generator)
    local_crops = torch.randn(2, NUM_PICTURES, 3, 16, 16, generator=generator)
    masks = torch.rand(2, NUM_PICTURES, 16, generator=generator) < torch.rand(2, NUM_PICTURES, 1, generator=generator)
    masks[:, :unmasked] = False
    share = NUM_PICTURES // world.size
    mine = slice(world.rank * share, (world.rank + 1) * share)
    return Views(
        global_crops=crops[:, mine].flatten(0, 1),
        local_crops=local_crops[:, mine].flatten(0, 1),
        masks=masks[:, mine].flatten(0, 1),
    )


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def started(config: Config, *, world: World) -> StepTools:
    tools = build_tools(config, world=world)
    list(start_weights(tools, config, world=world))
    return tools


def steps(world: World, words: tuple[str, ...], *, num_steps: int = 3, unmasked: int = 0) -> dict[str, Any]:
    """Losses of every step, gradients of the first, and what the networks are at the end."""
    tools = started(config_of(*words), world=world)
    losses: list[dict[str, float]] = []
    gradients: dict[str, Tensor] = {}
    for step in range(num_steps):
        views = views_of(step, world=world, unmasked=unmasked)
        result = train_step(tools, [views], plan=PLAN, num_micro_batches=1)
        losses.append(logged_values(result, world=world) | {"skipped": result.skipped})
        if step == 0:
            gradients = {
                name: whole(p.grad).clone()
                for name, p in tools.networks.student.named_parameters()
                if p.grad is not None
            }
    state = gather_to_main(tools.networks, world=world)
    return {"losses": losses, "gradients": gradients, "state": {k: v.clone() for k, v in state.items()}}


def several(world: World, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`steps` for each of several settings, as numpy arrays where rank 0 has them."""
    out: dict[str, Any] = {}
    for name, case in cases.items():
        done = steps(world, **case)
        for key in ("gradients", "state"):
            done[key] = {tensor: value.numpy() for tensor, value in done[key].items()} if world.is_main else {}
        out[name] = done
    return out
