"""From a configuration to the parts of a run.

In: `Config` and `World`. Out: `StepTools`, the schedule, and what was said while loading initial weights.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from dinov2.config.schema import Config
from dinov2.distributed import World, broadcast_module, max_over_ranks, sum_over_ranks
from dinov2.errors import WeightsError
from dinov2.loss.assignment import Reductions
from dinov2.models.weights import Weights, load_part, read_weights
from dinov2.optim.param_groups import build_param_groups
from dinov2.ssl import Networks, build_networks, build_objective
from dinov2.train.precision import choose_precision
from dinov2.train.step import StepTools

NO_HEAD = "none"  # value of init_from.*_head that leaves a head as initialised, whatever the weights hold


def build_tools(config: Config, *, world: World) -> StepTools:
    """Networks with random weights (equal on all ranks), optimiser, scaler and objective, on the world's device."""
    reductions = Reductions(sum=partial(sum_over_ranks, world=world), max=partial(max_over_ranks, world=world))
    torch.manual_seed(config.train.seed)
    networks = build_networks(
        student=config.student,
        dino=config.dino,
        ibot=config.ibot,
        img_size=config.crops.global_crops_size,
        attention=config.runtime.attention,
        reductions=reductions,
    ).to(world.device)
    networks.train()
    groups = build_param_groups(
        networks.student,
        layerwise_decay=config.optim.layerwise_decay,
        patch_embed_lr_mult=config.optim.patch_embed_lr_mult,
    )
    precision = choose_precision(config.runtime.precision, device=world.device)
    with_scaler = precision.needs_scaler and config.compute_precision.grad_scaler
    return StepTools(
        networks=networks,
        optimizer=torch.optim.AdamW(groups, betas=(config.optim.adamw_beta1, config.optim.adamw_beta2), fused=True),
        scaler=torch.amp.GradScaler(world.device.type, enabled=with_scaler),
        objective=build_objective(dino=config.dino, ibot=config.ibot, centering=config.train.centering),
        precision=precision,
        world=world,
        clip_grad=config.optim.clip_grad,
    )


def load_initial_weights(networks: Networks, config: Config, *, world: World) -> Iterator[str]:
    """Fills the student from the weights that the configuration names, then the teacher; yields a report per part.

    Every process loads the file; rank 0's values are sent to the others so that all start alike.
    """
    for part, weights, path in _sources(networks, config):
        state = weights.part(part)
        try:
            report = load_part(
                networks.student[part],
                state,
                source=f"{path} ({part})",
                allow_missing=config.init_from.allow_missing,
                allow_unexpected=config.init_from.allow_unexpected,
            )
        except WeightsError as error:
            hint = f" To start this head from random weights: init_from.{part}={NO_HEAD}." if part != "backbone" else ""
            raise WeightsError(f"{error}{hint}") from error
        yield report.summary()
    networks.align_teacher()
    broadcast_module(networks, world=world)


def _sources(networks: Networks, config: Config) -> Iterator[tuple[str, Weights, Path]]:
    """(part, weights, file) of every part that has a source: heads by `init_from`, else the backbone's own file."""
    main: Weights | None = None
    main_path = Path(config.student.pretrained_weights)
    if config.student.pretrained_weights:
        main = read_weights(main_path)
        yield "backbone", main, main_path
    for head, given in (("dino_head", config.init_from.dino_head), ("ibot_head", config.init_from.ibot_head)):
        if head not in networks.student or given == NO_HEAD:
            continue
        if given:
            yield head, read_weights(Path(given)), Path(given)
        elif main is not None and head in main.parts:
            yield head, main, main_path
