"""The loss between patch tokens: the student predicts, of hidden patches, the teacher's assignment.

In: student logits and teacher assignments of the masked patches [M, K], picture by picture. Out: a scalar.

Legend: B pictures (of both global crops together), N patches a picture, M masked patches in all, K prototypes.
"""

import torch
from torch import Tensor

from dinov2.loss.assignment import AssigningLoss, Reductions
from dinov2.loss.dino import cross_entropy


def masks_weights(masks: Tensor) -> Tensor:
    """One over the number of masked patches of its picture, for every masked patch.  bool [B, N] -> [M]"""
    return per_patch(masks).unsqueeze(-1).expand_as(masks)[masks]


def per_patch(masks: Tensor) -> Tensor:
    """One over the number of masked patches of every picture, 1 where there are none.  bool [B, N] -> [B]"""
    return 1.0 / masks.sum(dim=-1).clamp(min=1).float()


def ibot_loss(
    student: Tensor, teacher: Tensor, *, masks_weight: Tensor, num_pictures: int, temperature: float
) -> Tensor:
    """The mean over pictures of the mean cross-entropy over a picture's masked patches (iBOT, arXiv 2111.07832, eq. 2).

    Pictures without a mask count as 0; without any masked patch the loss is 0 and its gradient too.
    [M, K], [M, K], [M] -> scalar
    """
    return (cross_entropy(student, teacher, temperature=temperature) * masks_weight).sum() / num_pictures


class iBOTPatchLoss(AssigningLoss):
    """The public form: loss, temperature and the running centre [1, 1, K] in one module."""

    def __init__(
        self,
        patch_out_dim: int,
        student_temp: float = 0.1,
        *,
        center_momentum: float = 0.9,
        reductions: Reductions | None = None,
        processes_alike: bool = False,
    ) -> None:
        super().__init__(
            torch.zeros(1, 1, patch_out_dim),
            student_temp=student_temp,
            center_momentum=center_momentum,
            reductions=reductions,
            processes_alike=processes_alike,
        )

    def sinkhorn_knopp_teacher(
        self,
        teacher_output: Tensor,
        teacher_temp: float,
        n_masked_patches_tensor: Tensor | None = None,
        *,
        n_iterations: int = 3,
    ) -> Tensor:
        """Balanced assignments over the masked patches of all processes.  [M, K] -> [M, K]

        The public code needs `n_masked_patches_tensor`; here it is accepted and not used, because the count cancels.
        """
        del n_masked_patches_tensor
        return self.balanced(teacher_output, teacher_temp, n_iterations=n_iterations).dense()

    def forward(
        self, student_patch_tokens: Tensor, teacher_patch_tokens: Tensor, *, student_masks_flat: Tensor
    ) -> Tensor:
        """The loss from all patches, of which the masked ones count.  [B, N, K], [B, N, K], bool [B, N] -> scalar"""
        masks = student_masks_flat.bool()
        return self.forward_masked(student_patch_tokens[masks], teacher_patch_tokens[masks], student_masks_flat=masks)

    def forward_masked(
        self,
        student_patch_tokens_masked: Tensor,
        teacher_patch_tokens_masked: Tensor,
        *,
        student_masks_flat: Tensor,
        n_masked_patches: int | None = None,
        masks_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss from masked patches alone; rows beyond `n_masked_patches` are padding.  [M, K], [M, K] -> scalar"""
        weight = masks_weights(student_masks_flat) if masks_weight is None else masks_weight
        return ibot_loss(
            student_patch_tokens_masked[:n_masked_patches],
            teacher_patch_tokens_masked[:n_masked_patches],
            masks_weight=weight[:n_masked_patches],
            num_pictures=student_masks_flat.shape[0],
            temperature=self.student_temp,
        )
