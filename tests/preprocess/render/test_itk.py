import numpy as np
import pytest
from scipy import ndimage

from dinov2.errors import DicomRejected
from dinov2.preprocess.render.geometry import target_size
from dinov2.preprocess.render.itk import resample
from tests.preprocess.render.films import noise

MARGIN = 24  # film pixels of scipy's own continuation beyond the border


@pytest.mark.parametrize("size", [(300, 260), (97, 131), (260, 260), (64, 200)])
@pytest.mark.parametrize("short_side", [70, 128, 310])
def test_the_reference_is_the_half_pixel_centred_cubic_spline_that_scipy_computes(size, short_side):
    source = noise(*size)
    ours = resample(source, size=target_size(*size, short_side=short_side))
    zoom = [new / old for new, old in zip(ours.shape, size, strict=True)]
    theirs = ndimage.zoom(source.astype(np.float64), zoom, order=3, mode="nearest", grid_mode=True)
    assert ours.shape == theirs.shape
    inner = (slice(MARGIN, -MARGIN),) * 2
    assert np.abs(ours[inner] - theirs[inner]).max() < 1e-3 * np.ptp(source)


def test_two_pixels_are_refused_because_the_reference_reads_beyond_them():
    with pytest.raises(DicomRejected, match="engine=separable") as caught:
        resample(noise(2, 9), size=(7, 20))
    assert caught.value.reason == "too_small"
