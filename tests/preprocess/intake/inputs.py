"""Inputs for the tests of this room: films as bytes, and archives of them."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import Identification, Technique, write_film
from dinov2.preprocess.intake.names import Skipped
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.intake.sources import iter_sources

ROOMY = 1 << 30


def phantom_bytes(folder: Path, *, number: int = 0) -> bytes:
    """A DICOM file of the phantom room."""
    path = folder / f"phantom{number}.dcm"
    film = render(draw_body(np.random.default_rng(number), view="PA", findings=Findings()), short_side=64).film
    who = Identification(series="tests", patient="PHANTOM", number=number, view="PA")
    write_film(path, film, technique=Technique(), identification=who)
    content = path.read_bytes()
    path.unlink()
    return content


def write_zip(path: Path, members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: Mapping[str, bytes], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sources(root: Path, **words) -> list[Source]:
    return [found for found in iter_sources(root, **words) if isinstance(found, Source)]


def skipped(root: Path, **words) -> dict[str, str]:
    return {found.relative: found.why.name for found in iter_sources(root, **words) if isinstance(found, Skipped)}


def contents(found: list[Source]) -> dict[str, bytes]:
    return {source.relative: source.read(max_bytes=ROOMY) for source in found}
