"""What can be exported, by the name a user gives.

In: a run, a checkpoint, an exported folder, or whatever else `open_vit` opens. Out: a `Source` whose card says all that
is known of it; where nothing but weights is known, the card is made up from them.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dinov2 import __version__
from dinov2.backbone_card import CARD_NAME, BackboneCard
from dinov2.checkpoint.export import card_of_run
from dinov2.checkpoint.from_checkpoint import Which, load_network
from dinov2.checkpoint.reading import BEST, LATEST, find_checkpoint, steps_in
from dinov2.errors import CheckpointError, WeightsError
from dinov2.formats.heads import head_of
from dinov2.formats.opened import Opened
from dinov2.formats.opening import open_vit
from dinov2.formats.source import Source
from dinov2.layers import DINOHead
from dinov2.models.architecture import architecture_of
from dinov2.models.registry import CUSTOM
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.models.weights import read_weights
from dinov2.ssl.networks import backbone_of

log = logging.getLogger(__name__)

HEADS = ("dino_head", "ibot_head")


def open_source(
    name: str | Path, *, which: Which = "teacher", heads: bool = False, revision: str | None = None
) -> Source:
    """The backbone that `name` says, and with `heads` the projection heads and centres that lie with it.

    A run gives its newest checkpoint, or where none was kept its newest export. `revision` is that of a hub id.

    Raises:
        WeightsError: there is none of that name, it cannot be read, it holds no student where one is asked for, or a
            revision is given with a path.
        CheckpointError: a checkpoint that cannot be read.
    """
    path = Path(name)
    if revision is not None and path.exists():
        raise WeightsError(f"{name}: revision {revision}: only a hub id has one, and this is a path. Leave it out.")
    checkpoint = _checkpoint_at(path)
    if checkpoint is not None:
        return _from_checkpoint(checkpoint, which=which, heads=heads)
    if which == "student":
        raise WeightsError(
            f"{name}: only checkpoints hold a student, and this is none. Give a run of `dinov2 train` or "
            "RUN/checkpoints/STEP, or leave out --which."
        )
    opened = open_vit(name, revision=revision)
    if opened.card is not None:
        card = opened.card
    else:
        card = card_of_weights(opened, said={"source": str(name)} | ({"revision": revision} if revision else {}))
    source = Source(backbone=opened.vit, card=replace(card, heads={}), origin=str(name))
    # Of a folder without a card one file was opened; the heads lie beside it.
    return _with_heads(source, opened.place if opened.place.is_dir() else path) if heads else source


def card_of_weights(opened: Opened, *, said: Mapping[str, Any]) -> BackboneCard:
    """A card for weights that came without one; `said` is what is known of where they are from.

    It records no step and no training data, for nothing of them is known.
    """
    vit = opened.vit
    architecture = architecture_of(vit.state_dict(), source=str(opened.place), num_heads=vit.num_heads)
    architecture |= {
        "interpolate_antialias": vit.interpolate_antialias,
        "interpolate_offset": vit.interpolate_offset,
    }
    return BackboneCard(
        arch=_named_size(architecture),
        architecture=architecture,
        resolution_px=opened.input_size,
        short_side_px=opened.short_side,
        in_chans=architecture["in_chans"],
        mean=opened.mean,
        std=opened.std,
        step=0,
        provenance={"dinov2": __version__, "torch": torch.__version__, **said},
    )


def _named_size(architecture: Mapping[str, Any]) -> str:
    keys = ("embed_dim", "depth", "num_heads")
    sizes = (name for name, size in SIZES.items() if all(size[key] == architecture[key] for key in keys))
    return next(sizes, CUSTOM)


def _checkpoint_at(path: Path) -> Path | None:
    """The checkpoint that a path means; None where it is something else, or a run that kept exports alone."""
    if (path / CARD_NAME).is_file():
        return None
    try:
        return find_checkpoint(path)
    except CheckpointError:
        if path.name in (LATEST, BEST) or steps_in(path) or steps_in(path / "checkpoints"):
            raise  # there are checkpoints, and something is wrong with them
        return None


def _from_checkpoint(checkpoint: Path, *, which: Which, heads: bool) -> Source:
    log.info("%s: its %s", checkpoint, which)
    saved = load_network(checkpoint, which=which)
    found = {name: part for name, part in saved.parts.items() if isinstance(part, DINOHead)} if heads else {}
    card = card_of_run(saved.config, saved.parts, facts=saved.facts)
    return Source(
        backbone=backbone_of(saved.parts),
        card=replace(card, heads={name: card.heads[name] for name in found}),
        heads=found,
        centers=saved.centers if heads else {},
        network=which,
        origin=str(checkpoint),
    )


def _with_heads(source: Source, place: Path) -> Source:
    """The same with the heads and centres of the folder or file that it was read from, if there are any."""
    weights = read_weights(place)
    found: dict[str, DINOHead] = {}
    arguments: dict[str, dict[str, Any]] = {}
    for name in HEADS:
        if name in weights.parts:
            found[name], arguments[name] = head_of(weights.parts[name], source=str(place))
            _check_width(found[name], source.backbone, name=name, place=place)
    card = replace(source.card, heads=arguments)
    return replace(source, heads=found, centers=weights.centers, card=card)


def _check_width(head: DINOHead, backbone: DinoVisionTransformer, *, name: str, place: Path) -> None:
    first = next(iter(head.mlp.parameters()))
    if first.shape[1] != backbone.embed_dim:
        raise WeightsError(
            f"{place}: its {name} takes tokens of width {first.shape[1]}, its backbone gives {backbone.embed_dim}. "
            "They belong to different networks; leave out the heads."
        )
