"""What a head is told about labels that the source calls uncertain.

In: labels [N, C] of 1, 0, UNCERTAIN, NaN. Out: targets [N, C] in 0..1, `UNCERTAIN_CLASS`, or NaN (not trained on).

Only targets of fitting go through here. Where predictions are scored, an uncertain label is not counted, whatever the
policy: `dinov2.eval.probes.predictions` turns it into NaN.

Legend: N pictures, C classes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN

Policy = Literal["ignore", "zeros", "ones", "own-class", "smooth-zeros", "smooth-ones"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
SMOOTH_BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"smooth-zeros": (0.0, 0.3), "smooth-ones": (0.55, 0.85)}
)
"""Where the target of an uncertain label is drawn: LSR of Pham et al. 2019 (arXiv:1911.06475), as they state it."""
UNCERTAIN_CLASS = 2.0
"""The target `own-class` gives: the third of three outputs per class, after absent (0) and present (1)."""
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "ignore": "not trained on",
        "zeros": "absent",
        "ones": "present",
        "own-class": "a third output per class; absent against present is what is scored",
        "smooth-zeros": "a target drawn from 0..0.3",
        "smooth-ones": "a target drawn from 0.55..0.85",
    }
)


def apply_policy(labels: NDArray[np.float32], policy: Policy, *, seed: int = 0) -> NDArray[np.float32]:
    """Targets for fitting; a copy, in which only uncertain entries differ.

    U-Ignore, U-Zeros, U-Ones and U-MultiClass are of Irvin et al. 2019 (CheXpert, arXiv:1901.07031); smoothing is of
    Pham et al. 2019. Smoothed targets are drawn once per entry, from `seed`.

    Raises:
        ConfigError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"uncertain labels: {policy!r} is no policy. Choose one of {', '.join(POLICIES)}.")
    targets = np.array(labels, dtype=np.float32)
    uncertain = targets == UNCERTAIN
    if policy in SMOOTH_BOUNDS:
        low, high = SMOOTH_BOUNDS[policy]
        drawn = np.random.default_rng(seed).uniform(low, high, size=targets.shape)
        return np.where(uncertain, drawn, targets).astype(np.float32)
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "own-class": UNCERTAIN_CLASS}[policy]
    targets[uncertain] = value
    return targets


def without_uncertain(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels as they are scored: uncertain is NaN, not counted."""
    return np.where(labels == UNCERTAIN, np.float32(np.nan), labels).astype(np.float32)
