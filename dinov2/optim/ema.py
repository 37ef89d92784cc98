"""The teacher follows the student: a moving average of every parameter.

In: student and teacher, with parameters of the same names. Out: the teacher moved, in place.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def update_teacher(student: nn.Module, teacher: nn.Module, *, share: float | Tensor) -> None:
    """teacher = (1 - share) * teacher + share * student, for parameters, heads included; buffers stay.

    `share` is 1 minus the momentum. A scalar on the device is not waited for; where it is 0 nothing moves.

    Raises:
        ValueError: one of them has a parameter that the other lacks.
    """
    students, teachers = dict(student.named_parameters()), dict(teacher.named_parameters())
    if students.keys() != teachers.keys():
        lone = sorted(students.keys() ^ teachers.keys())
        raise ValueError(f"update_teacher: student and teacher differ in {len(lone)} parameters, such as {lone[0]}")
    names = list(teachers)
    pairs = [_here(teachers[name]) for name in names], [_here(students[name]) for name in names]
    if isinstance(share, Tensor):
        torch._foreach_lerp_(*pairs, [share] * len(names))
    else:
        torch._foreach_lerp_(*pairs, share)


def _here(parameter: Tensor) -> Tensor:
    """The part of a parameter that lies on this process; student and teacher are cut alike, so parts fit."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
