"""Weights from anywhere into a folder of ours.

In: the name of weights (a file, a folder of any kind, a hub id), and what is to be changed. Out: a folder as
`dinov2 export` writes, with the heads and centres that the source holds; an account of every tensor.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2 import __version__
from dinov2.backbone_card import CARD_NAME, BackboneCard, read_card
from dinov2.errors import WeightsError
from dinov2.formats.heads import head_of
from dinov2.formats.opened import IMAGENET_MEAN, IMAGENET_STD
from dinov2.formats.opening import NOT_OF_THE_BACKBONE, is_ours, mode_of, open_vit, processor_beside
from dinov2.formats.source import Source, Written
from dinov2.formats.writers import WRITERS, check_new
from dinov2.layers import DINOHead
from dinov2.layers.patch_embed import as_pair
from dinov2.models.architecture import architecture_of
from dinov2.models.folders import CONFIG, HEADS
from dinov2.models.key_maps import Which
from dinov2.models.processor import read_json
from dinov2.models.registry import ARCHITECTURES, CUSTOM
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.models.weights import LoadReport, Weights, load_part, read_weights

OPTIONS = ("--allow-missing", "--allow-unexpected")
LARGEST_DIFFERENCE = 1e-5
USUAL_SIDE = 518  # pixels, where neither a table nor a configuration says it
SNAPSHOTS = "snapshots"  # the folder of the hub's cache whose entries are commits


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is to be different from the source; None leaves it."""

    in_chans: int | None = None
    registers: int | None = None
    size_px: int | None = None


@dataclass(frozen=True, kw_only=True)
class Imported(Written):
    """What was written, and what became of every tensor."""

    reports: Mapping[str, LoadReport]  # part -> account
    notes: tuple[str, ...]  # sentences on what is not of the source


def import_weights(
    name: str | Path,
    *,
    folder: Path,
    revision: str | None = None,
    which: Which = "teacher",
    arch: str | None = None,
    changes: Changes = Changes(),
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Reads, adapts, writes, reads back and compares; `folder` is there in the end, or nothing is.

    Args:
        which: the network of a source that holds teacher and student.
        arch: "vit_small" ... that the source must be; and what flat parameters are read as.
        allow_missing: globs of names that the source may lack; they stay as initialised.
        allow_unexpected: globs of names that are left over.
        tell: is given a word on what is being done.

    Raises:
        WeightsError: the source cannot be read, or something in it is unexplained; or the folder cannot be written.
    """
    check_new(folder)
    path = Path(name)
    if path.is_dir() and is_ours(path) and not (path / CARD_NAME).is_file():
        raise WeightsError(f"{name}: a run of this package. dinov2 export --checkpoint {name} --output-dir {folder}")
    tell(f"reading {name}")
    weights = read_weights(name, revision=revision, which=which, arch=arch)
    card, notes = _card_of(weights, arch=arch, changes=changes)
    vit = _built(card)
    report = load_part(
        vit,
        weights.part("backbone"),
        source=str(name),
        grid=weights.grid,
        allow_missing=allow_missing,
        allow_unexpected=(*allow_unexpected, *NOT_OF_THE_BACKBONE),
        allowed_by=OPTIONS,
    )
    heads, arguments, reports = _heads_of(weights, width=vit.embed_dim, source=str(name))
    reports = {"backbone": report, **reports}
    tell("sums of the files")
    said = _said(name, weights, which=which, notes=(*report.resized, *report.notes, *notes))
    card = replace(card, heads=arguments, provenance=dict(card.provenance) | {"imported": said})
    source = Source(
        backbone=vit.eval(), card=card, heads=heads, centers=weights.centers, network=which, origin=str(name)
    )
    unchanged = not (report.resized or report.missing or notes or arch) and which == "teacher"
    compared = (_compared(source, weights.path),) if unchanged else ()
    tell("writing and reading back")
    written = WRITERS["dinov2"](source, folder, with_heads=True)
    checks = (*written.checks, _same_bits(folder, weights, reports), *compared)
    return Imported(
        folder=written.folder,
        files=written.files,
        checks=checks,
        next_step=written.next_step,
        reports=reports,
        notes=notes,
    )


def _card_of(weights: Weights, *, arch: str | None, changes: Changes) -> tuple[BackboneCard, tuple[str, ...]]:
    """What the network is to be; and in words what was assumed of its pictures."""
    place = weights.path if weights.path.is_dir() else weights.path.parent
    if (place / CARD_NAME).is_file() and (weights.path.is_dir() or weights.path.name == "backbone.safetensors"):
        card, assumed = read_card(place), ""
    else:
        card, assumed = _made_card(weights, place=place, changes=changes)
    if arch and card.arch != arch:
        architecture = card.architecture
        raise WeightsError(
            f"{weights.path}: is {card.arch} ({architecture['embed_dim']} wide, {architecture['depth']} blocks), and "
            f"not {arch}. Leave out the architecture, or give other weights."
        )
    changed = _changed(card, changes, registers=_registers(weights), source=str(weights.path))
    notes = [assumed] if assumed else []
    if changed.in_chans != card.in_chans and len(set(card.mean)) > 1:
        notes.append("mean and deviation of the one channel: the averages of the source's")
    return changed, tuple(notes)


def _made_card(weights: Weights, *, place: Path, changes: Changes) -> tuple[BackboneCard, str]:
    """From the weights themselves, and the library's configuration beside them."""
    state = weights.part("backbone")
    config = read_json(place / CONFIG) if (place / CONFIG).is_file() else {}
    said = processor_beside(place)
    patch = state["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in state else 1
    side = changes.size_px or said.size_px or USUAL_SIDE
    grid = None if "pos_embed" in state else (side // patch, side // patch)
    architecture = architecture_of(
        state, source=str(weights.path), num_heads=config.get("num_attention_heads"), grid=grid
    )
    architecture |= mode_of(config, state) if config else {}
    table_side = as_pair(architecture["img_size"])[0]
    fits = said.size_px is not None and said.size_px % patch == 0
    keys = ("embed_dim", "depth", "num_heads")
    named = (name for name, size in SIZES.items() if all(size[key] == architecture[key] for key in keys))
    card = BackboneCard(
        arch=next(named, CUSTOM),
        architecture=architecture,
        resolution_px=said.size_px if fits and said.size_px else table_side,
        short_side_px=said.short_side_px if fits else None,
        in_chans=architecture["in_chans"],
        mean=said.mean,
        std=said.std,
        step=0,
        provenance={"dinov2": __version__, "torch": torch.__version__},
    )
    usual = said.size_px is None and (said.mean, said.std) == (IMAGENET_MEAN, IMAGENET_STD)
    return card, "mean and deviation of pictures: ImageNet's, as the source says none" if usual else ""


def _changed(card: BackboneCard, changes: Changes, *, registers: int, source: str) -> BackboneCard:
    architecture = dict(card.architecture)
    patch = as_pair(architecture["patch_size"])
    if changes.registers is not None:
        if changes.registers < registers:
            raise WeightsError(
                f"{source}: has {registers} registers, and {changes.registers} are asked for. A network loses what it "
                f"learnt with them; give --registers {registers} or more, or leave it out."
            )
        architecture["num_register_tokens"] = changes.registers
    if changes.size_px is not None:
        if changes.size_px < 1 or any(changes.size_px % side for side in patch):
            raise WeightsError(f"--size {changes.size_px}: not a multiple of the patch ({patch[0]} x {patch[1]}).")
        architecture["img_size"] = changes.size_px
    if changes.in_chans is not None:
        if changes.in_chans < 1:
            raise WeightsError(f"--in-chans {changes.in_chans}: a picture has at least 1 channel.")
        architecture["in_chans"] = changes.in_chans
    chans = int(architecture["in_chans"])
    return replace(
        card,
        architecture=architecture,
        resolution_px=changes.size_px or card.resolution_px,
        short_side_px=None if changes.size_px else card.short_side_px,
        in_chans=chans,
        mean=_channels(card.mean, chans),
        std=_channels(card.std, chans),
    )


def _channels(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """As many as there are channels; where that changes, the average for each."""
    return values if len(values) == count else (sum(values) / len(values),) * count


def _registers(weights: Weights) -> int:
    state = weights.part("backbone")
    return state["register_tokens"].shape[1] if "register_tokens" in state else 0


def _built(card: BackboneCard) -> DinoVisionTransformer:
    """With initial weights that are the same every time, for what the source has not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ARCHITECTURES[card.arch](**card.architecture)


def _heads_of(
    weights: Weights, *, width: int, source: str
) -> tuple[dict[str, DINOHead], dict[str, dict[str, Any]], dict[str, LoadReport]]:
    """Modules, their arguments and accounts, of the heads that the source holds."""
    heads: dict[str, DINOHead] = {}
    arguments: dict[str, dict[str, Any]] = {}
    reports: dict[str, LoadReport] = {}
    for name in HEADS:
        if name not in weights.parts:
            continue
        state = weights.parts[name]
        heads[name], arguments[name] = head_of(state, source=f"{source} ({name})")
        if arguments[name]["in_dim"] != width:
            raise WeightsError(
                f"{source}: its {name} takes tokens of width {arguments[name]['in_dim']}, its backbone gives {width}. "
                "They belong to different networks; give the backbone's file alone."
            )
        reports[name] = LoadReport(source=source, used=tuple(state), resized=(), missing=(), unexpected=())
    return heads, arguments, reports


def _said(name: str | Path, weights: Weights, *, which: Which, notes: tuple[str, ...]) -> dict[str, Any]:
    """Where the weights are from."""
    said: dict[str, Any] = {"source": str(name), "network": which}
    if weights.path.parent.name == SNAPSHOTS:
        said["revision"] = weights.path.name
    said["sha256"] = {file.name: _sha256(file) for file in weights.files}
    return said | ({"changes": list(notes)} if notes else {})


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@torch.no_grad()
def _compared(source: Source, path: Path) -> str:
    """That the source, opened for use, computes the same.  Raises WeightsError."""
    opened = open_vit(path).vit
    patch = as_pair(source.backbone.patch_size)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(1, source.card.in_chans, 4 * patch[0], 4 * patch[1], generator=generator)
    ours, theirs = _tokens(source.backbone, pictures), _tokens(opened, pictures)
    largest = float((ours - theirs).abs().max())
    if not largest <= LARGEST_DIFFERENCE:
        raise WeightsError(f"{path}: what was read of it computes something else, by {largest:g}. Nothing was written.")
    return f"features of the source itself differ by at most {largest:.1g}"


def _tokens(network: nn.Module, pictures: Tensor) -> Tensor:
    features = network.forward_features(pictures)  # type: ignore[operator]
    return torch.cat([features["x_norm_clstoken"].flatten(), features["x_norm_patchtokens"].flatten()])


def _same_bits(folder: Path, weights: Weights, reports: Mapping[str, LoadReport]) -> str:
    """That every tensor that was used is in the files bit for bit.  Raises WeightsError, and takes the folder away."""
    back = read_weights(folder)
    count = 0
    for part, report in reports.items():
        given, written = weights.parts[part], back.parts[part]
        wrong = [name for name in report.used if not torch.equal(given[name].to(written[name].dtype), written[name])]
        if wrong:
            shutil.rmtree(folder, ignore_errors=True)
            raise WeightsError(f"{folder}: {part} {wrong[0]} reads back differently; removed. The disk is at fault.")
        count += len(report.used)
    return f"{count} tensors are those of the source bit for bit"
