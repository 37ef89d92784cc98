"""Size of the picture: cubic B-spline of SimpleITK on half-pixel-centred grids. The home of SimpleITK.

In: a float32 film [H, W]. Out: a float32 film with the wanted short side. One thread: many films are converted at once,
one per process.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinov2.preprocess.radiograph import Film


def target_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """(height, width) with the short side as asked and the long side rounded to the nearest pixel."""
    scale = short_side / min(height, width)
    return tuple(
        short_side if side == min(height, width) else max(short_side, round(side * scale)) for side in (height, width)
    )  # type: ignore[return-value]


def resample_mask(mask: NDArray[np.bool_], *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """[H, W] -> [h, w] bool: for every pixel of the result, the one of the mask that its centre falls into."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(mask.shape, size, strict=True)
    )
    taken: NDArray[np.bool_] = mask[np.ix_(rows, columns)]
    return taken


def resample(film: Film, *, short_side: int) -> Film:
    """[H, W] -> [h, w] float32, min(h, w) = short_side, aspect kept.

    Pixel i of an axis covers [i, i+1); output pixel j is taken at (j + 0.5) * n_in / n_out - 0.5, so both grids cover
    the same area. Without that shift SimpleITK would sample the corner-aligned grid: half an output pixel off, and the
    default value 0 in the last rows and columns when upsampling. Positions up to half a pixel outside the first and
    last centres still lie inside the image as ITK sees it and are extrapolated by the mirrored spline. There is no
    low-pass: that is the look of the published encoders' pictures.
    """
    height, width = film.shape
    new_height, new_width = target_size(height, width, short_side=short_side)
    if (new_height, new_width) == (height, width):
        return film
    steps = (width / new_width, height / new_height)  # SimpleITK counts x first
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.SetSize((new_width, new_height))
    resampler.SetOutputSpacing(steps)
    resampler.SetOutputOrigin(tuple((step - 1) / 2 for step in steps))
    resampler.SetDefaultPixelValue(float(film.min()))
    image = sitk.GetImageFromArray(np.ascontiguousarray(film, dtype=np.float32))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the spline's prefilter is a filter of its own and asks here
    return np.ascontiguousarray(sitk.GetArrayFromImage(resampler.Execute(image)), dtype=np.float32)
