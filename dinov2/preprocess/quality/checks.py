"""What is remarked on a film that passed every filter, from its pixels.

In: the film as decoded, and its picture. Out: flags.
"""

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import Quality
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.radiograph import Radiograph
from dinov2.preprocess.reasons import Flag


def remarks(film: Radiograph, picture: NDArray[np.uint8], *, policy: Quality) -> tuple[Flag, ...]:
    """Flags of one film: polarity_suspect, truncated, saturated, near_constant.  `picture` is its 8-bit picture."""
    del film, policy
    return (Flag.POLARITY_SUSPECT,) if likeness(picture) < 0 else ()
