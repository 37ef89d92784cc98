"""The spread of features: each is pushed away from its nearest neighbour in the batch.

In: features [B, D] of one crop of B pictures of this process, and where wanted the way to those of all processes.
Out: a scalar.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pairwise_distance

from dinov2.loss.assignment import Reductions

EPS = 1e-8


def koleo_loss(features: Tensor, *, eps: float = EPS, reductions: Reductions | None = None) -> Tensor:
    """Minus the mean log distance to the nearest neighbour on the unit sphere (arXiv 1806.03198, section 3).

    Always in float32 and outside autocast: `eps` is zero in half precision, and a duplicate picture would make the loss
    infinite. Exact duplicates keep their (finite) value and get no gradient, for there is no direction in which to part
    them. Fewer than two features have no neighbour: the loss is 0, with a zero gradient.

    Neighbours are those of this process, as published; with `reductions` those of all processes, and the mean of the
    results over processes is the loss of all features together. Each process must hold equally many.  [B, D] -> scalar
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        unit = normalize(features, dim=-1, eps=eps)
        everyone = unit if reductions is None else reductions.gather(unit)  # [B * processes, D]
        if everyone.shape[0] < 2:
            return (features * 0.0).sum()
        first = 0 if reductions is None else reductions.rank * unit.shape[0]
        nearest = everyone[nearest_neighbours(unit, among=everyone, first=first)]
        distance = pairwise_distance(unit, nearest, eps=EPS)
        duplicate = (unit == nearest).all(dim=-1)
        distance = torch.where(duplicate, distance.detach(), distance)
        return -torch.log(distance + eps).mean()


@torch.no_grad()
def nearest_neighbours(unit: Tensor, *, among: Tensor, first: int) -> Tensor:
    """For each row of unit length the index in `among` of the other row with the largest inner product.

    Row i of `unit` is row `first + i` of `among`.  [B, D], [A, D] -> int64 [B]
    """
    similarity = unit @ among.T
    similarity[:, first : first + len(unit)].fill_diagonal_(-1.0)
    return similarity.argmax(dim=1)


class KoLeoLoss(nn.Module):
    """The public form of `koleo_loss`."""

    def forward(self, student_output: Tensor, eps: float = EPS) -> Tensor:
        """[B, D] -> scalar"""
        return koleo_loss(student_output, eps=eps)
