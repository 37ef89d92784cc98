import math
from dataclasses import replace
from itertools import pairwise

import pytest

from dinov2.config.schema import Optim, Teacher, Train
from dinov2.optim import Schedule, StepPlan, build_schedule, schedule_at
from dinov2.optim.schedules import cosine, linear_warmup, scaled_lr, warmup_cosine

RUN = Optim(lr=1.0, min_lr=0.1, total_steps=20, warmup_steps=4, freeze_last_layer_steps=2)
WARMING = Teacher(warmup_teacher_temp=0.04, teacher_temp=0.07, warmup_teacher_temp_steps=4)


def course(optim: Optim = RUN, teacher: Teacher = WARMING) -> Schedule:
    return build_schedule(optim, teacher, train=Train(OFFICIAL_EPOCH_LENGTH=10), global_batch=2048)


def at(step: int, schedule: Schedule) -> StepPlan:
    return schedule_at(step, schedule=schedule)


def test_steps_given_directly_win_over_epochs() -> None:
    by_epochs = course(
        Optim(epochs=7, warmup_epochs=1.5, freeze_last_layer_epochs=2), Teacher(warmup_teacher_temp_epochs=3)
    )
    assert (by_epochs.total_steps, by_epochs.warmup_steps, by_epochs.freeze_last_layer_steps) == (70, 15, 20)
    assert by_epochs.temperature_warmup_steps == 30
    by_steps = course()
    assert (by_steps.total_steps, by_steps.warmup_steps, by_steps.freeze_last_layer_steps) == (20, 4, 2)
    assert by_steps.temperature_warmup_steps == 4


def test_a_learning_rate_given_directly_is_the_peak_and_a_base_rate_is_scaled() -> None:
    assert course(replace(RUN, lr=0.3)).peak_lr == 0.3
    assert course(replace(RUN, lr=0.0, base_lr=4e-3)).peak_lr == pytest.approx(4e-3 * math.sqrt(2))


@pytest.mark.parametrize(("rule", "factor"), [("sqrt_wrt_1024", math.sqrt(2)), ("linear_wrt_256", 8.0), ("none", 1.0)])
def test_each_scaling_rule_has_its_reference_batch(rule: str, factor: float) -> None:
    assert scaled_lr(1e-3, global_batch=2048, rule=rule) == pytest.approx(1e-3 * factor)


def test_the_last_layer_stands_still_and_then_follows() -> None:
    plans = [at(step, course()) for step in range(20)]
    assert [plan.last_layer_lr for plan in plans[:2]] == [0.0, 0.0]
    assert all(plan.last_layer_lr == plan.lr for plan in plans[2:])


def test_the_peak_is_reached_at_the_end_of_the_warm_up_and_held_for_two_steps() -> None:
    lrs = [at(step, course()).lr for step in range(21)]
    assert lrs[0] == 0.0
    assert lrs[3] == lrs[4] == 1.0
    assert all(a > b for a, b in pairwise(lrs[4:]))
    assert lrs[20] == 0.1


def test_the_temperature_warms_up_and_then_holds() -> None:
    temperatures = [at(step, course()).teacher_temperature for step in range(6)]
    assert temperatures == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])


def test_past_the_end_every_final_value_holds() -> None:
    end = at(1000, course())
    assert (end.lr, end.weight_decay, end.teacher_momentum) == (0.1, 0.4, 1.0)


@pytest.mark.parametrize(
    ("warmup", "first_two"), [(0, [1.0, pytest.approx(0.5 + 0.5 * math.cos(math.pi / 10))]), (1, [0.0, 1.0])]
)
def test_a_warm_up_may_have_no_step_or_one(warmup: int, first_two: list) -> None:
    values = [warmup_cosine(i, peak=1.0, final=0.0, warmup_steps=warmup, total_steps=10) for i in range(2)]
    assert values == first_two


def test_a_line_and_a_cosine_start_and_end_where_they_are_told() -> None:
    assert linear_warmup(0, start=0.04, peak=0.07, num_steps=30) == 0.04
    assert linear_warmup(29, start=0.04, peak=0.07, num_steps=30) == pytest.approx(0.07)
    assert cosine(0, start=1.0, end=0.25, num_steps=10) == 1.0
    assert cosine(5, start=1.0, end=0.0, num_steps=10) == pytest.approx(0.5)
    assert cosine(11, start=1.0, end=0.25, num_steps=10) == 0.25
