"""What lies in a folder of weights, whoever wrote it.

In: a folder: of exports, of Hugging Face's or timm's (whole or in several files), RAD-DINO's with its head beside, of
the public trainer (a file per rank, or one `.pth`). Out: which file holds what; nothing is read but small JSON.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from dinov2.errors import WeightsError
from dinov2.models.files import SUFFIXES
from dinov2.models.shards import rank_files
from dinov2.models.timm_names import NOT_IN_TIMM

BACKBONE_FILES = ("backbone.safetensors", "backbone_compatible.safetensors")  # ours, RAD-DINO's
HEADS = ("dino_head", "ibot_head")
CENTERS_FILE = "centers.safetensors"
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SEVERAL = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
CONFIG = "config.json"
TRANSFORMERS_MODELS = ("dinov2", "dinov2_with_registers")
TIMM_MODELS = ("dinov2", "dinov3")  # somewhere in the name of the architecture
MAX_LISTED = 8
"""Names that a message lists before it only counts them."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Files of one set of weights."""

    parts: dict[str, Path] = field(default_factory=dict)  # part -> the file of it alone
    together: tuple[Path, ...] = ()  # files whose tensors are one state dict
    ranks: tuple[Path, ...] = ()  # a file per process of the public trainer
    centers: Path | None = None
    rest: Path | None = None  # what timm has no place for

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        others = (self.centers, self.rest)
        return (*self.parts.values(), *self.together, *self.ranks, *(one for one in others if one))


def look_into(folder: Path) -> Contents:
    """Which files of `folder` are its weights; heads count wherever they lie.

    Raises:
        WeightsError: none of its files are weights, one that its index names is absent, or it is of another model.
    """
    parts = {head: folder / f"{head}.safetensors" for head in HEADS if (folder / f"{head}.safetensors").is_file()}
    centers = _if_there(folder / CENTERS_FILE)
    backbone = next((folder / name for name in BACKBONE_FILES if (folder / name).is_file()), None)
    if backbone is not None:
        return Contents(parts={"backbone": backbone, **parts}, centers=centers)
    ranks = rank_files(folder)
    if ranks:
        return Contents(ranks=ranks, parts=parts, centers=centers)
    check_model_type(folder / CONFIG)
    together = model_files(folder)
    if not together and not parts:
        alone = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
        if len(alone) != 1:
            raise _nothing_in(folder, several=alone)
        together = tuple(alone)
    return Contents(parts=parts, together=together, centers=centers, rest=_if_there(folder / NOT_IN_TIMM))


def model_files(folder: Path) -> tuple[Path, ...]:
    """The files of a Hugging Face model: one, or those that its index names; none where it has none.

    Raises:
        WeightsError: an index names a file that is not there.
    """
    for whole, index, several in zip(WHOLE, INDEXES, SEVERAL, strict=True):
        if (folder / whole).is_file():
            return (folder / whole,)
        if (folder / index).is_file():
            return _indexed(folder / index)
        found = tuple(sorted(folder.glob(several)))
        if found:
            return found
    return ()


def check_model_type(config: Path) -> None:
    """Raises WeightsError where a folder's `config.json` is of another model than DINOv2 or its kin in timm."""
    if not config.exists():
        return
    try:
        said = json.loads(config.read_text())
        model_type, architecture = said.get("model_type"), str(said.get("architecture", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{config}: not a Hugging Face config ({error}). Download the folder again.") from error
    if model_type is None and any(name in architecture for name in TIMM_MODELS):
        return
    if model_type not in TRANSFORMERS_MODELS:
        expected = f"expected {' or '.join(TRANSFORMERS_MODELS)}, or an architecture of timm with dinov2 or dinov3"
        raise WeightsError(f"{config}: model_type is {model_type!r}; {expected}.")


def listed(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _indexed(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of weights ({error}). Download the folder again.") from error
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise WeightsError(f"{index}: names {listed(absent)}, not in the folder. Download it again.")
    return tuple(index.parent / name for name in names)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _nothing_in(folder: Path, *, several: list[Path]) -> WeightsError:
    if several:
        return WeightsError(f"{folder}: holds several files of weights; name one: {listed([p.name for p in several])}.")
    names = sorted(entry.name for entry in folder.iterdir())
    found = f"only {listed(names)}" if names else "it is empty"
    return WeightsError(f"{folder}: no {BACKBONE_FILES[0]}, {' or '.join(WHOLE)} in it, {found}.")
