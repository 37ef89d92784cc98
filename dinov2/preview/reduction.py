"""Patch tokens made small: three colours for the eye, a few bytes a patch for the page.

In: tokens [F, N, D]. Out: `Colours`; `Codes`, from which the page computes cosine similarities.

Legend: F films, N patches, D width, K dimensions that are kept.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

Floats = NDArray[np.float32]
MOST_DIMENSIONS = 64
LARGEST_CODE = 127
NUM_PAIRS = 20_000  # of patches, whose similarity is compared with that of whole tokens
ENDS = (1.0, 99.0)  # percentiles of a component that become its darkest and its brightest


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Three principal components over the patches of all films as red, green and blue."""

    colours: NDArray[np.uint8]  # [F, N, 3]
    shares: tuple[float, ...]  # of the variance, one a component


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Tokens of length 1, less their mean, in K principal components of a byte each.

    Token = mean + codes * scale. `mean` has K + 1 coordinates: what of it lies outside the components is the last, and
    is the same for every token, so that similarities lose nothing of it.
    """

    codes: NDArray[np.int8]  # [F, N, K]
    scale: Floats  # [K]
    mean: Floats  # [K + 1]
    share: float  # of the variance that the K components hold
    typical_error: float  # of a similarity, the mean over pairs of patches
    large_error: float  # 99 in 100 are below it

    def similarity(self, film: int, patch: int, *, centred: bool = False) -> Floats:
        """Cosine of one patch to all, as the page computes it.  -> [F, N]"""
        vectors = self.vectors(centred=centred)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        cosines: Floats = unit @ unit[film, patch]
        return cosines

    def vectors(self, *, centred: bool) -> Floats:
        """Tokens again, or what is left of them without their mean.  -> [F, N, K + 1], or [F, N, K]"""
        away = self.codes.astype(np.float32) * self.scale
        if centred:
            return away
        last = np.full((*away.shape[:2], 1), self.mean[-1], dtype=np.float32)
        return np.concatenate([away + self.mean[:-1], last], axis=-1)


def colours_of(tokens: Floats) -> Colours:
    """One basis for all films, so that a colour means the same on each; the sign of a component is that of its largest
    part."""
    films, patches, width = tokens.shape
    flat = tokens.reshape(-1, width)
    found = _components(flat, most=3)
    places = found.transform(flat) * _signs(found.components_)
    low, high = np.percentile(places, ENDS, axis=0)
    levels = np.clip((places - low) / np.maximum(high - low, 1e-12), 0, 1)
    filled = np.full((len(flat), 3), 0.5)
    filled[:, : levels.shape[1]] = levels
    return Colours(
        colours=np.rint(255 * filled).astype(np.uint8).reshape(films, patches, 3),
        shares=tuple(float(share) for share in np.nan_to_num(found.explained_variance_ratio_)),
    )


def codes_of(tokens: Floats, *, most: int = MOST_DIMENSIONS) -> Codes:
    """See `Codes`."""
    films, patches, width = tokens.shape
    flat = tokens.reshape(-1, width).astype(np.float64)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    found = _components(unit, most=most)
    places = found.transform(unit)
    scale = np.maximum(np.abs(places).max(axis=0) / LARGEST_CODE, 1e-12).astype(np.float32)
    within = found.components_ @ found.mean_
    outside = np.sqrt(max(0.0, float(found.mean_ @ found.mean_ - within @ within)))
    codes = Codes(
        codes=np.rint(places / scale).astype(np.int8).reshape(films, patches, -1),
        scale=scale,
        mean=np.append(within, outside).astype(np.float32),
        share=float(np.nan_to_num(found.explained_variance_ratio_).sum()),
        typical_error=0.0,
        large_error=0.0,
    )
    return _with_errors(codes, unit=unit)


def _components(flat: "NDArray[np.floating[Any]]", *, most: int) -> PCA:
    """Of fewer tokens than `most`, or of tokens that are all the same, what there is; shares are then no numbers."""
    rows, width = flat.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        return PCA(min(most, rows, width), svd_solver="full" if rows < width else "covariance_eigh").fit(flat)


def _with_errors(codes: Codes, *, unit: NDArray[np.float64]) -> Codes:
    """Of random pairs: similarity of the codes against that of the tokens."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, len(unit), size=(2, NUM_PAIRS))
    vectors = codes.vectors(centred=False).reshape(len(unit), -1)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    errors = np.abs((vectors[left] * vectors[right]).sum(axis=1) - (unit[left] * unit[right]).sum(axis=1))
    return replace(codes, typical_error=float(errors.mean()), large_error=float(np.percentile(errors, 99)))


def _signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(components).argmax(axis=1)
    signs: NDArray[np.float64] = np.sign(components[np.arange(len(components)), largest])
    return np.where(signs == 0, 1.0, signs)
