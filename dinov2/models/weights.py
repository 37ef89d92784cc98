"""Weights by the name a user gives.

In: a file, a folder of any kind (`dinov2.models.folders`), or a hub id. Out: `Weights`, under flat public names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dinov2.backbone_card import CARD_NAME, read_card
from dinov2.errors import WeightsError
from dinov2.layers.patch_embed import as_pair
from dinov2.models.files import PICKLES, read_file
from dinov2.models.fitting import LoadReport, compare_part, load_part
from dinov2.models.folders import TRANSFORMERS_MODELS, Contents, look_into
from dinov2.models.hub import local_place
from dinov2.models.key_maps import PARTS, Split, Which, holds_network, split_parts
from dinov2.models.position_table import Grid
from dinov2.models.shards import is_rank_file, rank_files, read_ranks
from dinov2.models.timm_names import StateDict, with_rest

__all__ = [
    "PICKLES",
    "TRANSFORMERS_MODELS",
    "LoadReport",
    "Weights",
    "compare_part",
    "load_part",
    "read_weights",
]
EXPORTED = "backbone.safetensors"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file or folder holds, under flat public names."""

    path: Path  # of a hub id its folder in the cache
    parts: dict[str, StateDict]  # "backbone", "dino_head", "ibot_head": those that are there
    ignored: tuple[str, ...]  # tensors of no part: the student beside a teacher
    centers: StateDict = field(default_factory=dict)  # "dino_center", "ibot_center" [K]: those that are there
    files: tuple[Path, ...] = ()  # that were read
    grid: Grid | None = None  # of the position table, where our card beside says it

    def part(self, name: str) -> StateDict:
        """One part; a file of a single head serves as either head.

        Raises:
            WeightsError: the file does not hold it.
        """
        if name in self.parts:
            return self.parts[name]
        if name == "ibot_head" and set(self.parts) == {"dino_head"}:
            return self.parts["dino_head"]
        raise WeightsError(f"{self.path}: holds no {name}, only {', '.join(self.parts)}. Give a file that holds one.")


def read_weights(
    name: str | Path,
    *,
    revision: str | None = None,
    which: Which = "teacher",
    arch: str | None = None,
    values: bool = True,
) -> Weights:
    """What `name` holds, on the CPU; nothing in it is executed.

    Args:
        name: a file, a folder (of exports; Hugging Face's, in one file or several; RAD-DINO's with its head beside;
            timm's; the public trainer's with a file per rank), or a hub id, from the cache where it lies there.
        revision: tag or commit of a hub id.
        which: the network to take where a file holds teacher and student.
        arch: architecture of flat parameters that say it neither by their sizes nor by a `config.yaml` beside.
        values: False reads names, shapes and formats only; the tensors are then on the device meta.

    Raises:
        WeightsError: it is not there, cannot be read, or holds no weights of this kind.
    """
    path = local_place(name, revision=revision)
    contents = look_into(path) if path.is_dir() else _alone(path)
    found, centers = _read(contents, which=which, arch=arch, values=values, source=path)
    if not found.parts:
        raise WeightsError(f"{path}: holds no tensors under names of DINOv2 ({', '.join(PARTS)}). Is it another model?")
    return Weights(
        path=path,
        parts=found.parts,
        ignored=found.left_out,
        centers=found.centers | centers,
        files=contents.files,
        grid=_grid_beside(path),
    )


def _alone(path: Path) -> Contents:
    return Contents(ranks=rank_files(path)) if is_rank_file(path) else Contents(together=(path,))


def _read(contents: Contents, *, which: Which, arch: str | None, values: bool, source: Path) -> tuple[Split, StateDict]:
    """Parts of all files; and the centres that lie in a file of their own."""
    together: dict[str, Any] = {}
    for file in contents.together:
        together.update(read_file(file, values=values))
    if contents.ranks:
        together.update(read_ranks(contents.ranks, which=which, arch=arch, values=values))
    elif which == "student" and not holds_network(together, which):
        raise WeightsError(f"{source}: says of no tensor that it is the student's. Leave out the student, or give a "
                           "whole checkpoint of the training.")  # fmt: skip
    found = split_parts(together, which=which)
    if contents.rest is not None and "backbone" in found.parts:
        rest = read_file(contents.rest, values=values)
        found.parts["backbone"] = _with_rest(found.parts["backbone"], rest, source=contents.rest, values=values)
    for part, file in contents.parts.items():
        entries = split_parts(read_file(file, values=values)).parts
        if entries:
            found.parts[part] = next(iter(entries.values()))
    centers = split_parts(read_file(contents.centers, values=values)).centers if contents.centers else {}
    return found, centers


def _with_rest(state: StateDict, rest: Mapping[str, Any], *, source: Path, values: bool) -> StateDict:
    try:
        return with_rest(state, rest, source=str(source)) if values else {**state, "mask_token": rest["mask_token"]}
    except (KeyError, SafetensorError) as error:
        raise WeightsError(f"{source}: lacks {error}. Remove it or export again.") from error


def _grid_beside(path: Path) -> Grid | None:
    """Of the position table, as the card in the folder says, or the card beside an exported file."""
    folder = path if path.is_dir() else path.parent
    if not (folder / CARD_NAME).is_file() or (path.is_file() and path.name != EXPORTED):
        return None
    said = read_card(folder).architecture
    try:
        (rows, columns), (patch_rows, patch_columns) = as_pair(said["img_size"]), as_pair(said["patch_size"])
        return rows // patch_rows, columns // patch_columns
    except (KeyError, TypeError, ZeroDivisionError):
        return None  # a card that says less: the table is square, or refused
