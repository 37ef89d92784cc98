"""What a decoder is trained by.

In: logits [B, K, H, W] and masks [B, H, W] of class indices, 0 being background. Out: one number.

Legend: B pictures, K classes with background, H x W pixels.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

LossName = Literal["dice", "dice+ce"]


def soft_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - mean Dice over the classes that the batch's masks hold, background included.

    Dice of a class is 2 sum(p t) / (sum p + sum t), over the pixels of the whole batch, p being the softmax (Milletari
    et al., arXiv 1606.04797, with plain sums in the denominator). A class that no mask of the batch holds has no Dice
    and is left out of the mean; what is predicted of it is paid for by the classes whose pixels it takes, background
    among them.
    """
    probabilities = logits.float().softmax(dim=1)
    truth = one_hot(masks.long(), logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)  # [B, K, H, W]
    shared = (probabilities * truth).sum(dim=(0, 2, 3))  # [K]
    predicted, true = probabilities.sum(dim=(0, 2, 3)), truth.sum(dim=(0, 2, 3))
    dice = 2 * shared / (predicted + true).clamp(min=1)
    present = (true > 0).to(probabilities.dtype)
    return 1 - (dice * present).sum() / present.sum()


def dice_and_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """`soft_dice_loss` plus the mean cross-entropy over all pixels, background included."""
    return soft_dice_loss(logits, masks) + cross_entropy(logits.float(), masks.long())


LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": soft_dice_loss,
    "dice+ce": dice_and_cross_entropy,
}
