"""Size of the picture, by SimpleITK: the reference that `spline` is measured against. The home of SimpleITK.

In: a float32 film [H, W]. Out: a float32 film [h, w]. One thread: many films are converted at once, one per process.
"""

import numpy as np
import SimpleITK as sitk

from dinov2.errors import DicomRejected
from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.render.geometry import Size
from dinov2.preprocess.render.spline import SIGMA_PER_STEP

LARGEST_KERNEL_PX = 1024
KERNEL_ERROR = 1e-7  # share of the Gaussian that its cut-off tails may hold; ITK's own 0.01 shows in the picture


def resample(film: Film, *, size: Size, antialias: bool = False) -> Film:
    """[H, W] -> [h, w] float32.

    Pixel i of an axis covers [i, i+1); output pixel j is taken at (j + 0.5) * n_in / n_out - 0.5, so both grids cover
    the same area. Without that shift SimpleITK would sample the corner-aligned grid: half an output pixel off, and the
    default value 0 in the last rows and columns when upsampling. Positions up to half a pixel outside the first and
    last centres still lie inside the image as ITK sees it and are extrapolated by the mirrored spline. Unless
    `antialias` is on there is no low-pass: that is the look of the published encoders' pictures.

    Raises DicomRejected (too_small) for a side of 2 pixels, where ITK reads beyond its own memory.
    """
    if film.shape == size:
        return film
    if 2 in film.shape:
        raise DicomRejected(
            "the film has a side of 2 pixels, fewer than SimpleITK's spline needs. Set filters.min_side_px=3 or "
            "resample.engine=separable.",
            reason=Reason.TOO_SMALL,
        )
    steps = tuple(old / new for old, new in zip(reversed(film.shape), reversed(size), strict=True))  # x first
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.SetSize((size[1], size[0]))
    resampler.SetOutputSpacing(steps)
    resampler.SetOutputOrigin(tuple((step - 1) / 2 for step in steps))
    resampler.SetDefaultPixelValue(float(film.min()))
    image = sitk.GetImageFromArray(np.ascontiguousarray(film, dtype=np.float32))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the spline's prefilter is a filter of its own and asks here
    if antialias:
        image = _smoothed(image, steps=steps)
    return np.ascontiguousarray(sitk.GetArrayFromImage(resampler.Execute(image)), dtype=np.float32)


def _smoothed(image: sitk.Image, *, steps: tuple[float, ...]) -> sitk.Image:
    """The discrete Gaussian along every axis that shrinks.

    ITK's Bessel functions lose their accuracy for wide kernels: against the exact one the weights are off by 1e-6 of
    their sum up to a shrinking by 15, by 1e-4 at 24 and by 1e-2 at 37. The other engine has no such limit.
    """
    variances = [(SIGMA_PER_STEP * step) ** 2 if step > 1 else 0.0 for step in steps]
    return sitk.DiscreteGaussian(image, variances, LARGEST_KERNEL_PX, [KERNEL_ERROR] * len(steps), False)
