"""Small films for the tests of this room, written by the phantom room as real DICOM."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dinov2.config.preprocess import PreprocessConfig, Privacy, Resample
from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import Identification, Technique, write_film
from dinov2.preprocess.work.convert import Request, Summary, open_conversion
from dinov2.preprocess.work.task import Outcome

# Names of the input files are shown, so that the tests can speak of them; the default is to hide them.
SMALL = PreprocessConfig(resample=Resample(short_side=96), privacy=Privacy(source_names="path"))
CXR = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[3] / "shared" / "cxr"))
needs_radiographs = pytest.mark.skipif(
    not (CXR / "dicom").is_dir(), reason=f"no real radiographs at {CXR}; set DINOV2_CXR_DIR"
)
PLAIN = Technique()
PATIENT = "PHANTOM-SECRET-4711"


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


def convert(folder: Path, output: Path, *, config: PreprocessConfig = SMALL, **words) -> tuple[Summary, list[Outcome]]:
    """The room's whole work, in this process unless told otherwise."""
    request = Request(input=folder, output=output, config=config, **({"num_workers": 0} | words))
    with open_conversion(request) as conversion:
        outcomes = list(conversion.run())
        return conversion.finish(), outcomes
