"""Small films for the tests of this room, written by the phantom room as real DICOM."""

import csv
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from dinov2.config.preprocess import PreprocessConfig, Privacy, Resample
from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import Identification, Technique, write_film
from dinov2.preprocess.work.convert import Request, open_conversion
from dinov2.preprocess.work.outcome import Outcome
from dinov2.preprocess.work.summary import Summary

# Names of the input files are shown, so that the tests can speak of them; the default is to hide them.
SMALL = PreprocessConfig(resample=Resample(short_side=96), privacy=Privacy(source_names="path"))
CXR = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[3] / "shared" / "cxr"))
needs_radiographs = pytest.mark.skipif(
    not (CXR / "dicom").is_dir(), reason=f"no real radiographs at {CXR}; set DINOV2_CXR_DIR"
)
PLAIN = Technique()
PATIENT = "PHANTOM-SECRET-4711"
KEY = "a secret of thirty-two letters ..."


def film(seed: int = 0, short_side: int = 160) -> np.ndarray:
    return render(draw_body(np.random.default_rng(seed), view="PA", findings=Findings()), short_side=short_side).film


def write_phantom(path: Path, *, number: int = 0, seed: int = 0, technique: Technique = PLAIN, **tags) -> Path:
    """A DICOM file; `tags` are written over what the phantom room says, None removes one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    who = Identification(series="tests", patient=PATIENT, number=number, view="PA")
    write_film(path, film(seed), technique=technique, identification=who)
    if tags:
        dataset = pydicom.dcmread(path)
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)
    return path


def write_few_films(films: Path) -> Path:
    """Four films of one patient, one of them a PNG, a file that is none, and one that is not looked at."""
    for number, technique in enumerate((Technique(), Technique(monochrome1=True), Technique(bits_stored=8))):
        write_phantom(films / f"sub/{number}.dcm", number=number, seed=number, technique=technique)
    Image.fromarray((film(9) * 255).astype(np.uint8)).save(films / "plain.png")
    (films / "junk").write_bytes(b"junk" * 100)
    (films / "readme.txt").write_text("not looked at")
    return films


def convert(folder: Path, output: Path, *, config: PreprocessConfig = SMALL, **words) -> tuple[Summary, list[Outcome]]:
    """The room's whole work, in this process unless told otherwise."""
    request = Request(input=folder, output=output, config=config, **({"num_workers": 0} | words))
    with open_conversion(request) as conversion:
        outcomes = list(conversion.run())
        return conversion.finish(), outcomes


def rows_of(output: Path) -> list[dict]:
    return pq.read_table(output / "manifest.parquet").to_pylist()


def rejects_of(output: Path) -> dict[str, str]:
    """File -> reason."""
    with (output / "rejected.csv").open(newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


def messages_of(output: Path) -> dict[str, str]:
    """File -> message."""
    with (output / "rejected.csv").open(newline="") as stream:
        return {row["file"]: row["message"] for row in csv.DictReader(stream)}


def everything(output: Path) -> dict[str, bytes]:
    """All that may be handed on."""
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file()}
