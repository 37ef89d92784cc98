"""The weights a new run begins with: random ones, then those of the files that the configuration names.

In: `StepTools` whose networks were built, `Config`, `World`. Out: filled networks, and a report in words of every file
and part: what was used, resized, missing and left over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from dinov2.config.schema import Config
from dinov2.distributed import World, from_main, send_from_main
from dinov2.errors import WeightsError
from dinov2.models.folders import listed
from dinov2.models.weights import Weights, load_part, read_weights
from dinov2.optim.param_groups import BACKBONE
from dinov2.ssl import Networks
from dinov2.train.build import random_networks
from dinov2.train.step import StepTools

NO_HEAD = "none"  # value of init_from.*_head that leaves a head as initialised, whatever the weights hold


@dataclass(frozen=True)
class _Source:
    """Where a part comes from."""

    name: str  # as the configuration says it
    weights: Weights


def start_weights(tools: StepTools, config: Config, *, world: World) -> Iterator[str]:
    """Fills the networks of a new run: random weights, then those of the files that the configuration names.

    Rank 0 alone draws and reads; the others are sent their shards. Yields a report per file and part.
    Raises WeightsError, on every rank alike.
    """
    if world.size == 1:
        yield from load_files(tools.networks, config)
        tools.networks.align_teacher()
        return
    full: dict[str, torch.Tensor] | None = None
    centers: list[torch.Tensor] = []
    reports: list[str] = []
    fault = ""
    if world.is_main:
        networks = random_networks(config)
        try:
            reports = list(load_files(networks, config))
        except WeightsError as error:
            fault = str(error)
        full, centers = networks.student.state_dict(), networks.centers()
    reports, fault, centers = from_main((reports, fault, centers), world=world)
    if fault:
        told = WeightsError(fault)
        told.everywhere = True
        raise told
    yield from reports
    send_from_main(tools.networks.student, full, world=world)
    for center, given in zip(tools.networks.centers(), centers, strict=True):
        center.copy_(given)
    tools.networks.align_teacher()


def load_files(networks: Networks, config: Config) -> Iterator[str]:
    """Fills the student, and the centres of the losses, from what the configuration names; yields reports."""
    sources = _sources(networks, config)
    for part, source in sources.items():
        try:
            report = load_part(
                networks.student[part],
                source.weights.part(part),
                source=f"{source.name} ({part})",
                grid=source.weights.grid,
                allow_missing=config.init_from.allow_missing,
                allow_unexpected=config.init_from.allow_unexpected,
            )
        except WeightsError as error:
            hint = f" To start this head from random weights: init_from.{part}={NO_HEAD}." if part != BACKBONE else ""
            raise WeightsError(f"{error}{hint}") from error
        yield report.summary()
    for name, weights in {source.name: source.weights for source in sources.values()}.items():
        if weights.ignored:
            yield f"{name}: of no part, not used: {listed(list(weights.ignored))}"
    yield from _heads_left_random(networks, config, sources)
    yield from _take_centers(networks, config, sources)


def _sources(networks: Networks, config: Config) -> dict[str, _Source]:
    """Source of every part that has one: heads by `init_from`, else what lies beside the backbone."""
    main, start = config.student.pretrained_weights, config.init_from
    named: Mapping[str, str] = {"dino_head": start.dino_head, "ibot_head": start.ibot_head}
    heads = {head: given for head, given in named.items() if head in networks.student and given != NO_HEAD}
    names = dict.fromkeys(name for name in (main, *heads.values()) if name)
    read = {name: _Source(name, read_weights(name, revision=start.revision or None)) for name in names}
    sources = {BACKBONE: read[main]} if main else {}
    for head, given in heads.items():
        if given:
            sources[head] = read[given]
        elif main and head in read[main].weights.parts:
            sources[head] = read[main]
    return sources


def _heads_left_random(networks: Networks, config: Config, sources: Mapping[str, _Source]) -> Iterator[str]:
    """Which heads start anew under a backbone that does not: that is where such a run may fail."""
    new = [part for part in networks.student if part != BACKBONE and part not in sources]
    if BACKBONE in sources and new:
        frozen = config.init_from.freeze_backbone_steps
        learn = f"; for {frozen:,} steps they alone learn" if frozen else ""
        yield f"random weights: {' and '.join(new)}{learn}"


def _take_centers(networks: Networks, config: Config, sources: Mapping[str, _Source]) -> Iterator[str]:
    """The centres of the teacher's outputs, where the file of their head holds them and the run uses centres."""
    if config.train.centering != "centering":
        return
    patch_head = networks.patch_head
    centers = {
        "dino_center": ("dino_head", networks.dino_loss.center, config.dino.loss_weight),
        "ibot_center": (patch_head, networks.ibot_patch_loss.center, config.ibot.loss_weight),
    }
    told: dict[str, list[str]] = {}
    for name, (head, center, weight) in centers.items():
        if head not in sources or not weight:
            continue
        weights = sources[head].weights
        given = weights.centers.get(name)
        of_another_head = name == "ibot_center" and patch_head == "dino_head" and "ibot_head" in weights.parts
        fits = given is not None and given.numel() == center.numel() and not of_another_head
        if fits and given is not None:
            center.copy_(given.reshape(center.shape))
        how = f"{name} taken with its {head}" if fits else f"no {name} for its {head}, it starts at 0"
        told.setdefault(sources[head].name, []).append(how)
    for source, hows in told.items():
        yield f"{source}: {'; '.join(hows)}"
