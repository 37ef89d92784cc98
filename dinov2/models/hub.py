"""Models of the Hugging Face hub: what lies in its cache, else what it sends.

In: `owner/name`, or a path. Out: a folder with the model's configuration and weights; or the path itself.
"""

import logging
import re
from pathlib import Path

from dinov2.errors import WeightsError
from dinov2.models.files import SUFFIXES
from dinov2.models.folders import BACKBONE_FILES, CENTERS_FILE, HEADS
from dinov2.models.libraries import first_line, library_part

log = logging.getLogger(__name__)

HUB_PREFIXES = ("hf-hub:", "hf:")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DESCRIPTIONS = ("*.json", "*.txt")  # configuration, tokenizer
BESIDE = (*(f"{head}.safetensors" for head in HEADS), CENTERS_FILE)  # what a training continues from, where it is there
# Of several formats of the same weights, the first that the repository has is fetched.
WEIGHTS = (
    *("model*.safetensors", BACKBONE_FILES[0], "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("pytorch_model*.bin", "open_clip_pytorch_model.bin"),
)


def hub_id(name: str) -> str | None:
    """`owner/name` where the text is one, with or without `hf-hub:`; None where it is not."""
    for prefix in HUB_PREFIXES:
        name = name.removeprefix(prefix)
    return name if HUB_ID.fullmatch(name) else None


def local_place(name: str | Path, *, revision: str | None = None) -> Path:
    """The path itself where it is there; else the folder of the hub id `name`, at `revision`.

    Raises WeightsError where it is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    found = hub_id(str(name)) if path.suffix not in SUFFIXES else None
    if found is None:
        raise WeightsError(
            f"{path}: no such file or folder. Give a .pth, a .safetensors, a folder that holds weights, or OWNER/NAME "
            "of the Hugging Face hub."
        )
    return hub_folder(found, revision=revision)


def hub_folder(name: str, *, tower: str = "model", revision: str | None = None) -> Path:
    """The folder of `owner/name` in the hub's cache, fetched where it is not there yet; `revision` is a tag or commit.

    Raises WeightsError where it is neither in the cache nor to be had, or holds no weights of a known name.
    """
    snapshot_download = library_part("huggingface_hub", "snapshot_download", wanted_by=name)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if _has_weights(folder):
            return folder
    except Exception as error:  # what the hub's client raises differs between its releases
        log.debug("%s is not in the cache: %s", name, error)
    log.info("%s: not in the Hugging Face cache; asking the hub", name)
    try:
        for pattern in WEIGHTS:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*DESCRIPTIONS, *BESIDE, pattern]))
            if _has_weights(folder):
                return folder
    except Exception as error:
        raise WeightsError(
            f"{name}: no such folder, and no {tower} of this name in the Hugging Face cache nor to be had from the hub "
            f"({first_line(error)}). Where there is a network: hf download {name}"
        ) from error
    raise WeightsError(f"{name}: its repository on the hub holds none of {', '.join(WEIGHTS)}.")


def cached_folder(name: str) -> Path | None:
    """As `hub_folder`, but only what is in the cache already, whole or in part; None where nothing is."""
    snapshot_download = library_part("huggingface_hub", "snapshot_download", wanted_by=name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # see above
        return None


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in WEIGHTS)
