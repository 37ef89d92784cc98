"""A picture -> 256 bits that change little when the picture does.

In: grey levels. Out: 64 hexadecimal digits; `dinov2.manifest.duplicates` compares them.

The bits are the signs of 16 x 16 low frequencies (discrete cosine transform) of the picture reduced to 64 x 64. Before
that each grey level is replaced by the share of the picture that is darker, so a window, a gamma or any other curve
that keeps the order of the levels changes hardly a bit. Frequencies that run only across or only down say where the
light fell rather than who stood there, and are left out.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

SIDE = 64  # pixels of the reduced picture
NUM_FREQUENCIES = 16  # per axis, from the first that is not constant
SILENT = 1e-6  # of the levels' own spread: a frequency weaker than this is absent, whatever the rounding says


def perceptual_hash(picture: NDArray[np.uint8]) -> str:
    """64 hexadecimal digits of a picture uint8 [h, w].  A picture of one level gives zeros: it resembles nothing."""
    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))
    counts = np.bincount(small.ravel(), minlength=256)
    darker = (np.cumsum(counts) - counts / 2) / small.size  # mid-rank of each level: 0 .. 1
    waves = dctn(darker[small] - 0.5, norm="ortho")[1 : NUM_FREQUENCIES + 1, 1 : NUM_FREQUENCIES + 1]
    return np.packbits(waves > SILENT * SIDE).tobytes().hex()
