"""What a model card tells of the training, out of a `BackboneCard`.

In: a card, whose provenance may hold much or nothing. Out: rows, a clause, and the names of what is not known.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dinov2.backbone_card import BackboneCard

Row = tuple[str, str]


def recipe_of(card: BackboneCard) -> Iterator[Row]:
    """The settings that a reader asks for first; the whole configuration is in `backbone_card.json`."""
    yield from _length(card)
    config = card.provenance.get("config") or {}
    if config:
        yield from _method(config)
    yield from _machine(card)


def start_of(card: BackboneCard) -> str:
    """ ", from facebook/dinov2-base", or ", from random weights"; nothing where the card does not say."""
    start = _of(card.provenance.get("config") or {}, "student.pretrained_weights")
    if start is None:
        return ""
    return f", from {shown_name(start)}" if start else ", from random weights"


def unknown_of(card: BackboneCard) -> list[str]:
    """What readers of a model card look for and this one does not know."""
    known = card.provenance
    wanted = {
        "how it was trained": known.get("config"),
        "the pictures of the training": known.get("data"),
        "how they were preprocessed": card.preprocessing,
        "the hardware": known.get("hardware"),
        "the time it took": known.get("wall_seconds"),
        "scores": known.get("scores"),
    }
    return [name for name, value in wanted.items() if not value]


def shown_name(name: str) -> str:
    """A path without the machine's and the user's part (`/home/name`), at most three parts; a relative one as it is."""
    path = Path(name)
    return str(Path(*(path.parts[3:][-3:] or path.parts[-1:]))) if path.is_absolute() else name


def _length(card: BackboneCard) -> Iterator[Row]:
    config, known = card.provenance.get("config") or {}, card.provenance
    if card.step:
        planned = _planned_steps(config)
        yield "steps", f"{card.step:,}" + (f" of {planned:,}" if planned else "")
    if known.get("pictures_seen"):
        pictures = (known.get("data") or {}).get("pictures")
        passes = f" ({known['pictures_seen'] / pictures:.1f} passes)" if pictures else ""
        yield "pictures seen", f"{known['pictures_seen']:,}{passes}"
    batch = known.get("global_batch") or _of(config, "train.global_batch_size")
    if batch:
        yield "pictures per step", f"{batch:,}"


def _planned_steps(config: Mapping[str, Any]) -> int | None:
    steps = _of(config, "optim.total_steps")
    if steps:
        return int(steps)
    epochs, length = _of(config, "optim.epochs"), _of(config, "train.OFFICIAL_EPOCH_LENGTH")
    return round(epochs * length) if epochs and length else None


def _method(config: Mapping[str, Any]) -> Iterator[Row]:
    crops = config.get("crops") or {}
    for number, kind in ((2, "global"), (crops.get("local_crops_number"), "local")):
        size, scale = crops.get(f"{kind}_crops_size"), crops.get(f"{kind}_crops_scale")
        if number and size and scale:
            yield f"{kind} crops", f"{number} of {size} px, {scale[0]:g} to {scale[1]:g} of the picture's area"
    keys = {
        "augmentation": "augmentation.preset",
        "starting weights": "student.pretrained_weights",
        "base learning rate": "optim.base_lr",
        "its scaling with the batch": "optim.scaling_rule",
        "layer-wise decay": "optim.layerwise_decay",
        "drop path": "student.drop_path_rate",
        "centring": "train.centering",
        "DINO weight": "dino.loss_weight",
        "prototypes": "dino.head_n_prototypes",
        "KoLeo weight": "dino.koleo_loss_weight",
        "iBOT weight": "ibot.loss_weight",
        "seed": "train.seed",
    }
    for name, key in keys.items():
        value = _of(config, key)
        if isinstance(value, str):
            value = shown_name(value)
        if value not in (None, ""):
            yield name, f"{value:g}" if isinstance(value, float) else str(value)
    first, last = _of(config, "optim.weight_decay"), _of(config, "optim.weight_decay_end")
    if first is not None and last is not None:
        yield "weight decay", f"{first:g} to {last:g}"


def _machine(card: BackboneCard) -> Iterator[Row]:
    known = card.provenance
    if known.get("precision"):
        yield "precision", str(known["precision"])
    hardware = known.get("hardware") or {}
    devices, processes = hardware.get("devices") or [], hardware.get("world_size")
    if devices:
        yield "hardware", ", ".join(map(str, devices)) + (f"; processes: {processes:,}" if processes else "")
    if known.get("wall_seconds"):
        yield "wall time", _duration(float(known["wall_seconds"]))


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _of(config: Mapping[str, Any], key: str) -> Any:
    """`config["a"]["b"]` of "a.b"; None where it is not there."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
