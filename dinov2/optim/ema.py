"""The teacher follows the student: a moving average of every parameter.

In: student and teacher, with parameters of the same names. Out: the teacher moved, in place.
"""

import torch
from torch import nn


@torch.no_grad()
def update_teacher(student: nn.Module, teacher: nn.Module, *, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for parameters, heads included; buffers stay.

    Raises:
        ValueError: one of them has a parameter that the other lacks.
    """
    students, teachers = dict(student.named_parameters()), dict(teacher.named_parameters())
    if students.keys() != teachers.keys():
        lone = sorted(students.keys() ^ teachers.keys())
        raise ValueError(f"update_teacher: student and teacher differ in {len(lone)} parameters, such as {lone[0]}")
    names = list(teachers)
    torch._foreach_lerp_([teachers[name] for name in names], [students[name] for name in names], 1.0 - momentum)
