"""The three terms that are minimised, and the assignment of teacher logits to prototypes.

In: logits [M, K] of the teacher; of the student logits, or their factors [M, b] and [K, b]; features [B, D]. Out:
scalars in float32.
"""

from dinov2.loss.assignment import (
    ONE_PROCESS,
    Assignment,
    Reductions,
    centred_assignment,
    centred_softmax,
    sinkhorn,
    sinkhorn_assignment,
    updated_center,
)
from dinov2.loss.dino import DINOLoss, dino_loss
from dinov2.loss.ibot import ibot_loss, iBOTPatchLoss
from dinov2.loss.koleo import KoLeoLoss, koleo_loss
from dinov2.loss.prototypes import prototype_cross_entropy

__all__ = [
    "ONE_PROCESS",
    "Assignment",
    "DINOLoss",
    "KoLeoLoss",
    "Reductions",
    "centred_assignment",
    "centred_softmax",
    "dino_loss",
    "iBOTPatchLoss",
    "ibot_loss",
    "koleo_loss",
    "prototype_cross_entropy",
    "sinkhorn",
    "sinkhorn_assignment",
    "updated_center",
]
