"""The door training -> report: what a run keeps of each look at its teacher, for people to see.

In: arrays of a look, a run folder. Out: small files in RUN/looks, and the same arrays again.

    films.npz              the F films that every look shows, and what the monitored pictures are called
    <step>.npz             a `Look`
    neighbours/<row>.png   the monitored pictures that were a neighbour at some look, each written once

A file is whole or not there: it is written under a hidden name and then renamed. What cannot be read is passed over.
A run that was made before there were looks, or with `monitors.films=0`, has none of it, and the readers give nothing.

Legend: F films, S side of a thumbnail in pixels, h x w grid of patches, N monitored pictures, K neighbours.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = "looks"
NEIGHBOURS = "neighbours"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Films:
    """The fixed films of a run; with F = 0 the run has none."""

    thumbnails: NDArray[np.uint8]  # [F, S, S], grey, the square that the networks see
    image_ids: tuple[str, ...]  # F names, as in the manifest
    rows: NDArray[np.int32]  # [F], where each stands among the monitored pictures
    monitored_ids: tuple[str, ...]  # N names; `Look.neighbours` are rows of it
    monitored_labels: tuple[str, ...]  # N: what is known of each, in words ("Effusion, Nodule"); empty where nothing is

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the teacher, and for `agreement` the student, made of the films after `step` steps."""

    step: int
    grid: tuple[int, int]  # h, w
    colours: NDArray[np.uint8]
    """[F, h, w, 3]: three principal components of the teacher's patch tokens over all F films, as red, green and blue.

    Their axes are turned to those of the look before, so a colour keeps its meaning from look to look as far as the
    tokens do; each channel runs from its first to its 99th percentile over the films.
    """
    attention: NDArray[np.uint8]
    """[F, h, w]: attention of the teacher's class token over the patches, last block, mean of its heads.

    255 is the 99th percentile of each film and all above: a few patches often draw far more than the others.
    """
    masks: NDArray[np.bool_]
    """[F, h, w]: True = hidden from the student, the same at every look. All False in a run without iBOT."""
    agreement: NDArray[np.uint8]
    """[F, h, w]: how well the student tells, at hidden patches, what the teacher sees there; 0 at all others.

    255 max(0, 1 - cross-entropy / ln K), with the cross-entropy that iBOT minimises and K its number of prototypes: 0
    is no better than a uniform guess, 255 is certain and right. `masks` tells the one 0 from the other. With
    Sinkhorn, the teacher's assignment is made among the hidden patches of all films and some of other pictures.
    """
    neighbours: NDArray[np.int32]  # [F, K] rows of the monitored pictures, the nearest first; never the film itself
    similarity: NDArray[np.float32]  # [F, K] their cosine by class token


def write_films(run: Path, films: Films) -> None:
    """Replaces RUN/looks/films.npz.  Raises OSError that names the file."""
    _write_arrays(run / FOLDER / "films.npz", {field.name: getattr(films, field.name) for field in fields(Films)})


def read_films(run: Path) -> Films:
    """The films of a run, none where there are none or they cannot be read."""
    try:
        arrays = _read_arrays(run / FOLDER / "films.npz")
        names = {name: tuple(arrays[name].tolist()) for name in ("image_ids", "monitored_ids", "monitored_labels")}
        return Films(thumbnails=arrays["thumbnails"], rows=arrays["rows"], **names)
    except UNREADABLE:
        nothing = np.zeros((0, 0, 0), dtype=np.uint8)
        return Films(
            thumbnails=nothing, image_ids=(), rows=np.zeros(0, np.int32), monitored_ids=(), monitored_labels=()
        )


def write_look(run: Path, look: Look, *, pictures: Mapping[int, NDArray[np.uint8]] | None = None) -> int:
    """Writes RUN/looks/<step>.npz, and before it the thumbnails of neighbours that are not there yet.

    `pictures`: grey levels [S, S] by row of the monitored pictures. Gives how many bytes were written.  Raises OSError
    that names the file.
    """
    written = 0
    for row, levels in (pictures or {}).items():
        path = neighbour_picture(run, row)
        if not path.exists():
            encoded = io.BytesIO()
            Image.fromarray(levels).save(encoded, "PNG")
            written += _write(path, encoded.getvalue())
    arrays = {field.name: getattr(look, field.name) for field in fields(Look)}
    return written + _write_arrays(_place(run, look.step), arrays)


def read_look(run: Path, *, step: int) -> Look | None:
    """The look of one step; None where there is none, or it cannot be read."""
    try:
        arrays = _read_arrays(_place(run, step))
        height, width = (int(side) for side in arrays.pop("grid"))
        return Look(**arrays | {"step": int(arrays["step"]), "grid": (height, width)})
    except (*UNREADABLE, TypeError):  # TypeError: fields of another version
        return None


def read_looks(run: Path) -> list[Look]:
    """The looks of a run by step, without any that cannot be read; empty where there is none."""
    return [look for step in _steps(run) if (look := read_look(run, step=step)) is not None]


def newest_look(run: Path) -> Look | None:
    """The last of `read_looks`, without reading those before it."""
    readable = (read_look(run, step=step) for step in reversed(_steps(run)))
    return next((look for look in readable if look is not None), None)


def neighbour_picture(run: Path, row: int) -> Path:
    """Where the thumbnail of a monitored picture lies, if it was ever a neighbour: a grey PNG."""
    return run / FOLDER / NEIGHBOURS / f"{row}.png"


def drop_looks(run: Path, *, after_step: int) -> int:
    """Removes the looks after a step, as a run does that goes on from there; gives how many there were."""
    late = [step for step in _steps(run) if step > after_step]
    for step in late:
        _place(run, step).unlink(missing_ok=True)
    for folder in (run / FOLDER, run / FOLDER / NEIGHBOURS):
        for left in folder.glob(".*.partial"):
            left.unlink(missing_ok=True)
    return len(late)


def set_looks_aside(run: Path) -> Path:
    """Moves RUN/looks into RUN/superseded, for looks at other films are not to be compared; gives the new place."""
    aside = run / "superseded"
    aside.mkdir(exist_ok=True)
    taken = sum(1 for _ in aside.glob(f"{FOLDER}_*"))
    return (run / FOLDER).rename(aside / f"{FOLDER}_{taken + 1}")


def _place(run: Path, step: int) -> Path:
    return run / FOLDER / f"{step}.npz"


def _steps(run: Path) -> list[int]:
    names: Iterable[str] = (path.stem for path in (run / FOLDER).glob("*.npz"))
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _read_arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> int:
    encoded = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez_compressed(encoded, **named)
    return _write(path, encoded.getvalue())


def _write(path: Path, content: bytes) -> int:
    """Gives how many bytes it wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
        return len(content)
    except OSError as error:
        partial.unlink(missing_ok=True)  # half a file would keep a full disk full
        raise OSError(error.errno, error.strerror, str(path)) from error
