"""The loss between CLS tokens: every student view predicts the teacher's assignment of the same picture.

In: student logits and teacher assignments, one [B, K] per view. Out: a scalar.

Legend: B pictures (or pictures of several views in one), K prototypes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from dinov2.loss.assignment import AssigningLoss, Reductions


def cross_entropy(student_logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Per row, minus the sum of targets times log-probabilities, in float32.  [M, K], [M, K] -> [M]"""
    return -(targets * log_softmax(student_logits.float() / temperature, dim=-1)).sum(dim=-1)


def dino_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], *, temperature: float) -> Tensor:
    """Sum over all pairs of a student and a teacher view of the mean cross-entropy over pictures.

    The cross-entropy is linear in its target, so teacher views are added first and each student view is used once.
    Sequences of [B, K] -> scalar (DINO, arXiv 2104.14294, equation 3, without its exclusion of equal views).
    """
    targets = torch.stack([view.float() for view in teacher]).sum(dim=0)
    means = [cross_entropy(view, targets, temperature=temperature).mean() for view in student]
    return torch.stack(means).sum()


class DINOLoss(AssigningLoss):
    """The public form: loss, temperature and the running centre [1, K] in one module."""

    def __init__(
        self,
        out_dim: int,
        student_temp: float = 0.1,
        *,
        center_momentum: float = 0.9,
        reductions: Reductions | None = None,
    ) -> None:
        super().__init__(
            torch.zeros(1, out_dim), student_temp=student_temp, center_momentum=center_momentum, reductions=reductions
        )

    def sinkhorn_knopp_teacher(self, teacher_output: Tensor, teacher_temp: float, *, n_iterations: int = 3) -> Tensor:
        """Balanced assignments over the samples of all processes.  [M, K] -> [M, K]"""
        return self.balanced(teacher_output, teacher_temp, n_iterations=n_iterations).dense()

    def forward(
        self, student_output_list: Sequence[Tensor], teacher_out_softmaxed_centered_list: Sequence[Tensor]
    ) -> Tensor:
        """`dino_loss` at this module's temperature."""
        return dino_loss(student_output_list, teacher_out_softmaxed_centered_list, temperature=self.student_temp)
