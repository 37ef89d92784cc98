"""The three terms that are minimised, and the assignment of teacher logits to prototypes.

In: logits [M, K] of student and teacher, features [B, D]. Out: scalars in float32.
"""

from dinov2.loss.assignment import ONE_PROCESS, Reductions, centred_softmax, sinkhorn, updated_center
from dinov2.loss.dino import DINOLoss, dino_loss
from dinov2.loss.ibot import ibot_loss, iBOTPatchLoss
from dinov2.loss.koleo import KoLeoLoss, koleo_loss

__all__ = [
    "ONE_PROCESS",
    "DINOLoss",
    "KoLeoLoss",
    "Reductions",
    "centred_softmax",
    "dino_loss",
    "iBOTPatchLoss",
    "ibot_loss",
    "koleo_loss",
    "sinkhorn",
    "updated_center",
]
