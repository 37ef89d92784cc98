import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from dinov2.loss import DINOLoss, KoLeoLoss, dino_loss, iBOTPatchLoss, koleo_loss


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_dino_loss_is_the_sum_over_pairs_of_torch_s_own_cross_entropy() -> None:
    students = [logits(3, 8, seed=i) for i in range(4)]
    teachers = [logits(3, 8, seed=10 + i).softmax(dim=-1) for i in range(2)]
    pairs = sum(cross_entropy(s / 0.1, t) for s in students for t in teachers)
    assert_close(dino_loss(students, teachers, temperature=0.1), pairs)


def test_two_uniform_networks_are_at_the_logarithm_of_the_prototypes() -> None:
    value = dino_loss([torch.zeros(3, 64)], [torch.full((3, 64), 1 / 64)], temperature=0.1)
    assert float(value) == pytest.approx(math.log(64), rel=1e-6)


def test_the_losses_are_computed_in_float32_from_half_precision_logits() -> None:
    student, teacher = logits(5, 4096).half() * 2, logits(5, 4096, seed=1).softmax(dim=-1)
    exact = dino_loss([student.double().float()], [teacher], temperature=0.1)
    assert torch.equal(dino_loss([student], [teacher], temperature=0.1), exact)
    assert dino_loss([student], [teacher], temperature=0.1).dtype == torch.float32


def test_gradients_flow_to_the_student_only() -> None:
    student, teacher = logits(2, 6).requires_grad_(), logits(2, 6, seed=1).requires_grad_()
    loss = DINOLoss(6)
    loss([student], [loss.softmax_center_teacher(teacher, 0.05)]).backward()
    assert student.grad is not None
    assert teacher.grad is None


def masked_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    masks = torch.zeros(4, 9, dtype=torch.bool)
    masks[0, [1, 2, 5]] = True
    masks[2, 7] = True
    return logits(4, 9, 6), logits(4, 9, 6, seed=1).softmax(dim=-1), masks


def test_ibot_is_the_mean_over_pictures_of_the_mean_over_masked_patches() -> None:
    student, teacher, masks = masked_case()
    by_hand = [
        cross_entropy(student[i][masks[i]] / 0.1, teacher[i][masks[i]]) if masks[i].any() else torch.zeros(())
        for i in range(4)
    ]
    assert_close(iBOTPatchLoss(6)(student, teacher, student_masks_flat=masks), torch.stack(by_hand).mean())


def test_masked_rows_give_what_whole_pictures_give_and_padding_does_not_count() -> None:
    student, teacher, masks = masked_case()
    loss = iBOTPatchLoss(6)
    whole = loss(student, teacher, student_masks_flat=masks)
    assert_close(loss.forward_masked(student[masks], teacher[masks], student_masks_flat=masks), whole)
    padded = [torch.cat([rows[masks], logits(3, 6, seed=9)]) for rows in (student, teacher)]
    assert_close(loss.forward_masked(*padded, student_masks_flat=masks, n_masked_patches=4), whole)


def test_without_a_masked_patch_ibot_is_zero_with_a_gradient_of_zero() -> None:
    student = logits(0, 6).requires_grad_()
    masks = torch.zeros(2, 9, dtype=torch.bool)
    value = iBOTPatchLoss(6).forward_masked(student, torch.zeros(0, 6), student_masks_flat=masks)
    value.backward()
    assert float(value.detach()) == 0.0
    assert student.grad is not None
    assert student.grad.shape == (0, 6)


def test_the_centre_lies_where_public_checkpoints_have_it() -> None:
    assert DINOLoss(6).state_dict()["center"].shape == (1, 6)
    assert iBOTPatchLoss(6).state_dict()["center"].shape == (1, 1, 6)


def test_ibot_assigns_alike_with_and_without_the_leading_dimension() -> None:
    loss = iBOTPatchLoss(6)
    loss.update_center(logits(1, 5, 6))
    tokens = logits(5, 6, seed=2)
    with_leading = loss.softmax_center_teacher(tokens.unsqueeze(0), 0.05)
    assert with_leading.shape == (1, 5, 6)
    assert torch.equal(with_leading[0], loss.softmax_center_teacher(tokens, 0.05))


def test_the_count_that_the_public_code_hands_to_sinkhorn_makes_no_difference() -> None:
    loss, tokens = iBOTPatchLoss(6), logits(5, 6)
    with_count = loss.sinkhorn_knopp_teacher(tokens, 0.05, n_masked_patches_tensor=torch.tensor([5]))
    assert torch.equal(with_count, loss.sinkhorn_knopp_teacher(tokens, 0.05))


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbour() -> None:
    features = logits(6, 5)
    unit = normalize(features, dim=-1)
    distances = torch.cdist(unit, unit).fill_diagonal_(float("inf")).amin(dim=1)
    assert_close(koleo_loss(features), -distances.log().mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_duplicates_give_a_finite_loss_and_are_not_torn_apart(dtype: torch.dtype) -> None:
    features = logits(5, 32).to(dtype)
    features[3] = features[1]
    features[4] = features[1]
    features.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = KoLeoLoss()(features)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert float(features.grad.float().norm()) < 10  # a distance of 1e-8 would give 1e7
    assert float(features.grad[0].float().norm()) > 0


@pytest.mark.parametrize("pictures", [0, 1])
def test_koleo_of_less_than_two_pictures_is_zero_with_a_gradient_of_zero(pictures: int) -> None:
    features = logits(pictures, 8).requires_grad_()
    value = koleo_loss(features)
    value.backward()
    assert float(value.detach()) == 0.0
    assert torch.equal(features.grad, torch.zeros(pictures, 8))


def test_a_step_along_the_gradient_of_koleo_spreads_the_features() -> None:
    features = logits(16, 4).requires_grad_()
    before = koleo_loss(features)
    before.backward()
    assert float(koleo_loss(features.detach() - 0.05 * features.grad)) < float(before.detach())
