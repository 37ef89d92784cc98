"""One file -> one picture, in a worker process. Nothing that happens to one file is seen by another.

In: a `Task` (path, where to write). Out: an `Outcome`, which is plain data: a picture under a partial name with its
manifest row, or a reason. Exceptions are turned into reasons here; only a disk that takes nothing more is raised.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import dicom, raster
from dinov2.preprocess.quality import filters
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.render import grey
from dinov2.preprocess.render.picture import render
from dinov2.preprocess.work.identity import Identity


@dataclass(frozen=True)
class Task:
    """What a worker needs for one file."""

    path: Path
    relative: str
    partial: Path  # the folder of pictures that are not committed yet
    config: PreprocessConfig
    identity: Identity


@dataclass(frozen=True)
class Outcome:
    """What became of one file: `row` where there is a picture, else `reason` and `message`."""

    name: str  # HMAC of the relative path: how the journal calls the file
    image_id: str = ""
    row: Mapping[str, Any] | None = None
    reason: str = ""
    message: str = ""


def convert_file(task: Task) -> Outcome:
    """Read, judge, turn upright, resample, map to grey and leave the picture at `partial_path`.

    Raises OSError only where the picture cannot be written.
    """
    name = task.identity.name("path", task.relative)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries remark on a damaged file may hold element values
            film, flags = read_film(task.path, config=task.config)
            levels = render(film, config=task.config)
    except DicomRejected as error:
        return Outcome(name, reason=str(error.reason), message=str(error))
    except OSError as error:
        return Outcome(
            name,
            reason=Reason.UNREADABLE,
            message=f"the file cannot be read ({error.strerror or 'damaged'}). Mend its permissions or copy it again.",
        )
    except Exception as error:  # a damaged file met code that did not expect it: that file is lost, the run is not
        return Outcome(
            name,
            reason=Reason.UNREADABLE,
            message=f"the file could not be converted ({type(error).__name__}). Exclude it, and report it.",
        )
    image_id = task.identity.name("image", film.header.image_uid or task.relative)
    if likeness(levels) < 0:
        flags = (*flags, str(Flag.POLARITY_SUSPECT))
    content = grey.png_bytes(levels)
    _write(partial_path(task.partial, name=name), content)
    row = _row(film, levels, identity=task.identity, image_id=image_id, flags=flags)
    return Outcome(name, image_id=image_id, row=row | {"sha256": hashlib.sha256(content).hexdigest()})


def read_film(path: Path, *, config: PreprocessConfig) -> tuple[Radiograph, tuple[str, ...]]:
    """The film and all its flags, judged by its header before its pixels are decoded.

    Raises DicomRejected with a reason of `reasons`, OSError where the file cannot be opened.
    """
    if raster.is_raster(path):
        flags = filters.check(raster.read_header(path), policy=config.filters)
        film = raster.read_raster(path, policy=config.decode)
    else:
        flags = filters.check(dicom.read_header(path), policy=config.filters)
        film = dicom.read_dicom(path, policy=config.decode)
    return film, (*flags, *film.flags)


def image_path(image_id: str) -> str:
    """Where a picture lies below the images folder: 256 folders, so that none holds a million files."""
    return f"{image_id[:2]}/{image_id}.png"


def partial_path(folder: Path, *, name: str) -> Path:
    """Where a worker leaves the picture of the input called `name`; two files with one identity do not meet there."""
    return folder / f"{name}.png"


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    try:
        path.write_bytes(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _row(
    film: Radiograph, levels: NDArray[np.uint8], *, identity: Identity, image_id: str, flags: tuple[str, ...]
) -> dict[str, Any]:
    header: Header = film.header
    height, width = levels.shape
    spacing = None
    if header.spacing_mm is not None:  # of the picture, not of the film
        per_row, per_column = header.spacing_mm
        spacing = f"{per_row * film.pixels.shape[0] / height:.5g},{per_column * film.pixels.shape[1] / width:.5g}"
    return {
        "image": f"images/{image_path(image_id)}",
        "image_id": image_id,
        "patient": identity.name("patient", header.patient_id) if header.patient_id else None,
        "study": identity.name("study", header.study_uid) if header.study_uid else None,
        "view": header.view or None,
        "width": width,
        "height": height,
        "modality": header.modality or None,
        "flags": ",".join(flags),
        "spacing_mm": spacing,
        "bits": film.bits_stored,
    }
