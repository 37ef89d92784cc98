"""How pictures are put to a Hugging Face model, as its folder says.

In: a folder with `preprocessor_config.json` (or a newer `processor_config.json`), or with neither. Out: mean, standard
deviation, side in pixels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import WeightsError

FILE = "preprocessor_config.json"
NEWER_FILE, NEWER_KEY = "processor_config.json", "image_processor"  # of models with a tokenizer
Three = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Of pictures in 0..1."""

    mean: Three
    std: Three
    size_px: int | None  # None where the file does not say
    short_side_px: int | None = None  # of the picture that the square of `size_px` is cut from; None: the same


def read_processor(folder: Path, *, mean: Three, std: Three) -> Processor:
    """What the folder's file says; where there is none, or it says nothing of a value, the one given.

    Raises WeightsError where the file cannot be understood.
    """
    path = next((folder / name for name in (FILE, NEWER_FILE) if (folder / name).is_file()), None)
    if path is None:
        return Processor(mean=mean, std=std, size_px=None)
    said = read_json(path)
    if path.name == NEWER_FILE:
        said = said.get(NEWER_KEY) or {}
    if said.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    else:
        mean, std = _three(said.get("image_mean"), mean, path=path), _three(said.get("image_std"), std, path=path)
    crop = said.get("crop_size") if said.get("do_center_crop", True) else None
    size = said.get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) and said.get("do_resize", True) else None
    return Processor(
        mean=mean,
        std=std,
        size_px=_side(crop) or _side(size),
        short_side_px=edge if isinstance(edge, int) and _side(crop) and edge > (_side(crop) or 0) else None,
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.  Raises WeightsError."""
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}). Download the folder again.") from error
    if not isinstance(said, dict):
        raise WeightsError(f"{path}: holds a {type(said).__name__}, expected an object. Download the folder again.")
    return said


def _three(values: Any, otherwise: Three, *, path: Path) -> Three:
    if values is None:
        return otherwise
    try:
        numbers = [float(value) for value in (values if isinstance(values, list) else [values])]
        first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: mean and standard deviation must be three numbers, not {values!r}.") from error
    return first, second, third


def _side(size: Any) -> int | None:
    """Of 224, {"height": 224, "width": 224}, {"shortest_edge": 224}; of unequal sides the shorter."""
    if isinstance(size, dict):
        sides = [size.get(key) for key in ("height", "width", "shortest_edge", "longest_edge")]
        return min((side for side in sides if isinstance(side, int)), default=None)
    return size if isinstance(size, int) else None
