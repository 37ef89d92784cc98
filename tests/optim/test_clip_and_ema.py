import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.optim import clip_gradients, update_teacher


def with_gradients(scale: float) -> nn.ModuleDict:
    torch.manual_seed(0)
    modules = nn.ModuleDict({"large": nn.Linear(8, 8), "small": nn.Linear(4, 4)})
    for name, parameter in modules.named_parameters():
        parameter.grad = torch.randn_like(parameter) * (scale if name.startswith("large") else 0.01)
    return modules


def norm_of(module: nn.Module) -> float:
    return float(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).norm())


def test_each_module_is_clipped_by_its_own_norm_and_the_norms_before_are_returned() -> None:
    modules = with_gradients(10.0)
    before = {name: norm_of(module) for name, module in modules.items()}
    norms = clip_gradients(modules, max_norm=3.0)
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx(before)
    assert norm_of(modules["large"]) == pytest.approx(3.0, rel=1e-5)
    assert norm_of(modules["small"]) == pytest.approx(before["small"])


def test_clipping_equals_torch_s_own() -> None:
    ours, theirs = with_gradients(10.0), with_gradients(10.0)
    clip_gradients(ours, max_norm=3.0)
    for module in theirs.values():
        torch.nn.utils.clip_grad_norm_(module.parameters(), 3.0)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_maximum_of_zero_measures_without_clipping() -> None:
    modules = with_gradients(10.0)
    before = norm_of(modules["large"])
    norms = clip_gradients(modules, max_norm=0.0)
    assert float(norms["large"]) == pytest.approx(before)
    assert norm_of(modules["large"]) == before


def test_a_module_without_gradients_has_norm_zero() -> None:
    assert float(clip_gradients({"idle": nn.Linear(2, 2)}, max_norm=3.0)["idle"]) == 0.0


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_()
    return student, teacher


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.992, 1.0])
def test_the_teacher_moves_towards_the_student_by_one_minus_the_momentum(momentum: float) -> None:
    student, teacher = pair()
    expected = [
        momentum * t + (1 - momentum) * s for t, s in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    update_teacher(student, teacher, share=1 - momentum)
    assert_close(list(teacher.parameters()), expected)


def test_with_momentum_one_the_teacher_stays_bit_for_bit_and_with_zero_it_is_the_student() -> None:
    student, teacher = pair()
    before = copy.deepcopy(teacher)
    update_teacher(student, teacher, share=0.0)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before.parameters(), strict=True))
    update_teacher(student, teacher, share=1.0)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))


def test_buffers_are_left_alone() -> None:
    student, teacher = pair()
    student[1].running_mean.fill_(5.0)
    update_teacher(student, teacher, share=0.5)
    assert torch.equal(teacher[1].running_mean, torch.zeros(4))


def test_networks_with_different_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in 2 parameters, such as 1\.bias"):
        update_teacher(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)), share=0.5)
