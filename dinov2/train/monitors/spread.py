"""How far features spread, told without a label.

In: features [N, D] of pictures, patch tokens [B, P, D]. Out: numbers that a collapse shows in.

Legend: N pictures, B pictures of a batch, D width, P patches on a square grid of side g.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

RANKME_EPS = 1e-7
TABLE_BYTES = 64 * 2**20  # of cosines between patches at once


def rankme(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values: how many dimensions are in use, from 1 to min(N, D).

    RankMe (Garrido et al. 2023, arXiv:2210.02885, equation 1); the features are not centred. Singular values are the
    roots of the eigenvalues of a matrix [D, D] in float64.  [N, D] -> number; NaN where all features are 0.
    """
    values = _gram_values(features).sqrt()
    share = values / values.sum() + RANKME_EPS
    return float(torch.special.entr(share).sum().exp())


def effective_dimension(features: Tensor) -> float:
    """(sum of variances)^2 / sum of squared variances along the principal axes: 1 to D; the features are centred.

    The participation ratio: D where all directions vary alike, 1 where one does.  [N, D] -> number; NaN where nothing
    varies.
    """
    variances = _gram_values(features.double() - features.double().mean(dim=0))
    return float(variances.sum() ** 2 / variances.square().sum())


def mean_cosine(features: Tensor) -> float:
    """Mean cosine of two different pictures: 1 where all look alike.  [N, D] -> number; NaN of one picture."""
    units = normalize(features.double(), dim=1)
    count = len(units)
    if count < 2:
        return float("nan")
    return float((units.sum(dim=0).square().sum() - units.square().sum()) / (count * (count - 1)))


def patch_smoothness(patches: Tensor) -> Tensor:
    """Mean cosine of neighbouring patches less that of distant ones, per picture.  [B, P, D] -> float32 [B]

    Neighbours share an edge; distant ones are at least half the grid's side apart, along rows or columns. Near 0, a
    patch says nothing of its place: all patches are alike, or none is like its neighbour.
    """
    side = round(patches.shape[1] ** 0.5)
    near, far = _pairs(side, device=patches.device)
    at_once = max(1, TABLE_BYTES // (4 * patches.shape[1] ** 2))
    smooth = []
    for some in torch.split(patches.float(), at_once):
        units = normalize(some, dim=2)
        cosines = units @ units.transpose(1, 2)  # [b, P, P]
        means = [(cosines * pairs).sum(dim=(1, 2)) / pairs.sum() for pairs in (near, far)]
        smooth.append(means[0] - means[1])
    return torch.cat(smooth)


def _pairs(side: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which pairs of patches are neighbours, and which are distant.  -> float32 [P, P] each, of 0 and 1"""
    place = torch.arange(side, device=device)
    rows, columns = place.repeat_interleave(side), place.repeat(side)
    down, across = ((axis[:, None] - axis[None, :]).abs() for axis in (rows, columns))
    far = torch.maximum(down, across) >= max(side / 2, 1)
    return (down + across == 1).float(), far.float()


def _gram_values(features: Tensor) -> Tensor:
    """Eigenvalues of features^T features, none below 0.  [N, D] -> float64 [min(N, D)]"""
    wide = features.double()
    if wide.shape[0] < wide.shape[1]:
        wide = wide.T
    values: Tensor = torch.linalg.eigvalsh(wide.T @ wide)
    return values.clamp(min=0)
