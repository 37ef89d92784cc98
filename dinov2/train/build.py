"""From a configuration to the parts of a run.

In: `Config` and `World`. Out: `StepTools`; `train.start` fills in the weights of a new run.
"""

from functools import partial

import torch
from torch import nn

from dinov2.config.schema import Config
from dinov2.distributed import (
    Meshes,
    World,
    gather_rows,
    max_over_ranks,
    shard_part,
    sum_over_ranks,
)
from dinov2.loss.assignment import Reductions
from dinov2.optim import build_adamw, build_param_groups
from dinov2.ssl import Networks, build_networks, build_objective
from dinov2.ssl.precision import Precision, choose_precision
from dinov2.train.form import apply_form, choose_form
from dinov2.train.step import StepTools


def build_tools(config: Config, *, world: World) -> StepTools:
    """Networks, optimiser, scaler and objective on the world's device.

    With one process the networks hold random weights. With several they are shards without values: `start_weights` or
    a checkpoint fills them in.
    """
    reductions = reductions_of(world)
    sharded = world.size > 1
    if sharded:
        with torch.device("meta"):
            networks = _networks(config, reductions=reductions)
    else:
        networks = random_networks(config, reductions=reductions).to(world.device)
    precision = choose_precision(
        config.runtime.precision,
        config.compute_precision,
        parts=tuple(networks.student),
        device=world.device,
        sharded=sharded,
    )
    form = choose_form(config.runtime, device=world.device)
    apply_form(networks, form, runtime=config.runtime)
    if sharded:
        _shard(networks, precision, meshes=Meshes(world, shard_group_size=config.runtime.shard_group_size))
    networks.train()
    groups = build_param_groups(
        networks.student,
        layerwise_decay=config.optim.layerwise_decay,
        patch_embed_lr_mult=config.optim.patch_embed_lr_mult,
    )
    with_scaler = precision.needs_scaler and config.compute_precision.grad_scaler
    return StepTools(
        networks=networks,
        optimizer=build_adamw(groups, betas=(config.optim.adamw_beta1, config.optim.adamw_beta2)),
        scaler=torch.amp.GradScaler(world.device.type, enabled=with_scaler),
        objective=build_objective(
            dino=config.dino,
            ibot=config.ibot,
            centering=config.train.centering,
            reductions=reductions,
            compiled=form.compiled,
        ),
        precision=precision,
        form=form,
        world=world,
        clip_grad=config.optim.clip_grad,
    )


def reductions_of(world: World) -> Reductions:
    """What the losses need to know of the other processes."""
    return Reductions(
        sum=partial(sum_over_ranks, world=world),
        max=partial(max_over_ranks, world=world),
        gather=partial(gather_rows, world=world),
        rank=world.rank,
    )


def random_networks(config: Config, *, reductions: Reductions | None = None) -> Networks:
    """Networks on the CPU with the random weights of `train.seed`, the same for any number of processes."""
    torch.manual_seed(config.train.seed)
    return _networks(config, reductions=reductions)


def _networks(config: Config, *, reductions: Reductions | None) -> Networks:
    return build_networks(
        student=config.student,
        dino=config.dino,
        ibot=config.ibot,
        img_size=config.crops.global_crops_size,
        attention=config.runtime.attention,
        reductions=reductions,
    )


def _shard(networks: Networks, precision: Precision, *, meshes: Meshes) -> None:
    """Networks on the meta device become shards on the world's device; only the centres have values then."""
    for (side, name), layout in precision.layouts.items():
        part = networks.parts(side)[name]
        shard_part(part, units=_blocks(part), layout=layout, meshes=meshes)
    networks.to_empty(device=precision.device)
    for center in networks.centers():
        center.zero_()


def _blocks(part: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a backbone; a head is gathered as a whole."""
    return list(getattr(part, "blocks", ()))
