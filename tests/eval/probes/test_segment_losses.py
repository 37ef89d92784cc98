"""Losses of masks."""

import pytest
import torch
from torch.nn.functional import one_hot

from dinov2.eval.probes.segment_losses import LOSSES, soft_dice_loss


def _sure(masks: torch.Tensor, *, classes: int) -> torch.Tensor:
    """Logits that are all but certain of these masks."""
    return 50.0 * one_hot(masks.long(), classes).movedim(-1, 1).float()


def _masks(*classes: int) -> torch.Tensor:
    return torch.tensor(classes).repeat_interleave(4).view(1, len(classes), 4)


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_right_answer_costs_nothing(name: str) -> None:
    masks = _masks(0, 1, 2, 1)
    assert float(LOSSES[name](_sure(masks, classes=3), masks)) == pytest.approx(0, abs=1e-5)  # type: ignore[index]


def test_dice_loss_is_one_minus_the_mean_dice_by_hand() -> None:
    true, said = _masks(0, 0, 1, 1), _masks(0, 1, 1, 1)
    # background: 2 * 4 / (4 + 8), class 1: 2 * 8 / (12 + 8)
    assert float(soft_dice_loss(_sure(said, classes=2), true)) == pytest.approx(1 - (8 / 12 + 16 / 20) / 2, abs=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_class_that_no_mask_of_the_batch_holds_does_not_blow_up(name: str) -> None:
    masks = _masks(0, 0, 1, 1)
    logits = (0.1 * torch.randn(1, 5, 4, 4)).requires_grad_()
    loss = LOSSES[name](logits, masks)  # type: ignore[index]
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())
    # it does not count, so that the mean is that of the classes which are there
    assert float(soft_dice_loss(_sure(masks, classes=5), masks)) == pytest.approx(0, abs=1e-5)


def test_what_is_predicted_of_an_absent_class_on_background_is_paid_for() -> None:
    masks = _masks(0, 0, 0, 0)
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    soft_dice_loss(logits, masks).backward()
    assert bool((logits.grad[:, 1:] > 0).all())
    assert float(soft_dice_loss(_sure(_masks(0, 2, 0, 0), classes=3), masks)) > 0.1
