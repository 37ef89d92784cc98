"""The yardstick of the conversion benchmark: a film as a short script would convert it.

In: a DICOM file. Out: a PNG of short side 518. pydicom decodes, the rescale is applied, MONOCHROME1 is inverted,
SimpleITK's B-spline resamples on one thread, minimum and maximum become 0 and 255, Pillow saves with its defaults.
Written for comparison only: no check, no identity, no manifest.
"""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from dinov2.preprocess.render import itk
from dinov2.preprocess.render.geometry import target_size


def plain_convert(path: Path, output: Path, *, short_side: int = 518) -> None:
    """One DICOM file -> one PNG."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.astype(np.float32)
    pixels = pixels * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() + pixels.min() - pixels
    height, width = pixels.shape
    resized = itk.resample(pixels, size=target_size(height, width, short_side=short_side))
    levels = (resized - resized.min()) * (255 / (resized.max() - resized.min()))
    Image.fromarray(np.rint(levels).astype(np.uint8)).save(output)
