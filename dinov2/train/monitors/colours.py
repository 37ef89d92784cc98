"""Patch tokens as colours that keep their meaning from look to look.

In: tokens of the films, the colours of the look before. Out: uint8 [F, h, w, 3].

The three largest principal components over all films, each of variance 1, are turned (and mirrored) so that they come
nearest to the colours of the look before: orthogonal Procrustes (Schoenemann 1966). Without that, signs and the order
of components that are about as large jump, and a film flickers. The colours before are taken as they were written, so
a run that goes on from a checkpoint gives the same as one that never stopped.

Legend: F films, P = h x w patches, D width, M = F P.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_COLOURS = 3
DARKEST, BRIGHTEST = 1.0, 99.0  # percentiles of a component that become 0 and 255
GREY = 128

Colours = NDArray[np.uint8]  # [F, h, w, 3]
Components = NDArray[np.float32]  # [M, 3]


def coloured(tokens: Tensor, *, grid: tuple[int, int], before: Colours | None) -> Colours:
    """Colours of a look.  float32 [F, P, D] -> [F, h, w, 3]

    `before` counts where it has the same shape. Tokens that are not finite, or all the same, are grey.
    """
    components = principal_components(tokens.flatten(0, 1))
    shape = (len(tokens), *grid, NUM_COLOURS)
    if before is not None and before.shape == shape:
        components = aligned(components, to=before.reshape(-1, NUM_COLOURS))
    return _levels(components).reshape(shape)


def principal_components(tokens: Tensor) -> Components:
    """Scores on the three largest axes, each of variance 1 or all 0.  [M, D] -> [M, 3]

    An axis points to where its largest entry is positive.
    """
    scores = np.zeros((len(tokens), NUM_COLOURS), dtype=np.float32)
    if not bool(torch.isfinite(tokens).all()):
        return scores
    centred = tokens.float() - tokens.float().mean(dim=0)
    _, axes = torch.linalg.eigh((centred.T @ centred / len(centred)).double())  # ascending
    largest = axes.flip(1)[:, :NUM_COLOURS].float()  # [D, 3], or fewer columns
    largest = largest * largest.gather(0, largest.abs().argmax(dim=0, keepdim=True)).sign()
    found = centred @ largest
    spread = found.square().mean(dim=0).sqrt()
    floor = torch.finfo(torch.float32).eps * tokens.float().abs().max()
    scores[:, : found.shape[1]] = torch.where(spread > floor, found / spread, 0).cpu().numpy()
    return scores


def aligned(components: Components, *, to: NDArray[np.uint8]) -> Components:
    """The components turned and mirrored to be nearest to colours [M, 3].  [M, 3] -> [M, 3]"""
    target = to.astype(np.float64)
    left, _, right = np.linalg.svd(components.astype(np.float64).T @ (target - target.mean(axis=0)))
    turned: Components = (components @ (left @ right)).astype(np.float32)
    return turned


def _levels(components: Components) -> Colours:
    """Every component over its own range.  [M, 3] -> uint8 [M, 3]"""
    low, high = np.percentile(components, (DARKEST, BRIGHTEST), axis=0)
    wide = high > low
    spread = np.where(wide, high - low, 1)
    levels = np.where(wide, (components - low) / spread * 255, GREY)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
