"""The first steps of a run that continues given weights: heads learn on a backbone that does not change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dinov2.config.load import load_config
from dinov2.distributed import World, gather_to_main
from dinov2.optim import build_schedule, schedule_at
from dinov2.optim.schedules import StepPlan
from dinov2.train.step import StepTools, logged_values, train_step
from tests.distributed.processes import on_ranks
from tests.distributed.sharded_steps import config_of, started, views_of, with_strategy
from tests.train.test_step import tools, views

FROZEN = StepPlan(
    lr=1e-3, last_layer_lr=5e-3, weight_decay=0.4, teacher_momentum=0.9, teacher_temperature=0.05,
    is_backbone_frozen=True, head_lr_factor=5.0,
)  # fmt: skip
FREE = replace(FROZEN, is_backbone_frozen=False, head_lr_factor=1.0, last_layer_lr=1e-3)
NUM_FROZEN = 2


def part(these: StepTools, side: str, name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in these.networks.parts(side)[name].state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_frozen_backbone_and_its_teacher_stay_to_the_bit_while_the_heads_learn(precision: str) -> None:
    these = tools(f"runtime.precision={precision}")
    backbones = {side: part(these, side, "backbone") for side in ("student", "teacher")}
    heads = {side: part(these, side, "dino_head") for side in ("student", "teacher")}
    results = [
        train_step(these, [views(seed), views(seed + 9)], plan=FROZEN, num_micro_batches=2)
        for seed in range(12 if precision == "fp16" else 3)  # the first loss scales are too large
    ]
    assert not results[-1].skipped
    assert not any(result.findings for result in results)
    assert float(results[-1].grad_norms["backbone"]) == 0
    assert float(results[-1].grad_norms["dino_head"]) > 0
    for side in ("student", "teacher"):
        assert same(part(these, side, "backbone"), backbones[side])
        assert not same(part(these, side, "dino_head"), heads[side])


def test_a_backbone_that_was_frozen_moves_afterwards_as_one_that_never_moved_before() -> None:
    """AdamW remembers nothing of the freeze: the backbone's first step has the length of a first step."""
    these, fresh = tools(), tools()
    for seed in range(3):
        train_step(these, [views(seed)], plan=FROZEN, num_micro_batches=1)
    backbone = these.networks.student["backbone"]
    assert all(float(these.optimizer.state[p]["step"]) == 0 for p in backbone.parameters())
    fresh.networks.load_state_dict(these.networks.state_dict())
    for one in (these, fresh):
        train_step(one, [views(7)], plan=FREE, num_micro_batches=1)
    assert same(part(these, "student", "backbone"), part(fresh, "student", "backbone"))
    assert not same(part(these, "student", "backbone"), part(tools(), "student", "backbone"))


def test_the_forward_pass_of_a_frozen_step_is_that_of_any_other() -> None:
    frozen, free = (train_step(tools(), [views()], plan=plan, num_micro_batches=1) for plan in (FROZEN, FREE))
    for name, value in free.values.items():
        assert float(frozen.values[name]) == float(value), name
    assert float(frozen.grad_norms["dino_head"]) == pytest.approx(float(free.grad_norms["dino_head"]), rel=1e-6)


def test_a_step_that_is_not_finite_is_skipped_while_the_backbone_is_frozen() -> None:
    these = tools()
    before = part(these, "student", "dino_head")
    bad = views()
    bad.global_crops[0, 0, 0, 0] = float("nan")
    result = train_step(these, [bad], plan=FROZEN, num_micro_batches=1)
    assert result.skipped
    assert result.findings
    assert same(part(these, "student", "dino_head"), before)


def course(world: World, words: tuple[str, ...]) -> dict[str, Any]:
    """Some steps across the end of the freeze, by the schedule of a configuration; values of rank 0."""
    config = config_of(
        *words,
        "optim={lr: 0.002, total_steps: 5, warmup_steps: 1, freeze_last_layer_steps: 0}",
        "init_from={freeze_backbone_steps: 2, head_lr_factor: 4}",
        "student.pretrained_weights=given",
    )
    schedule = build_schedule(
        config.optim, config.teacher, train=config.train, global_batch=8, init_from=config.init_from
    )
    these = started(replace(config, student=replace(config.student, pretrained_weights="")), world=world)
    states, losses = [], []
    for step in range(5):
        result = train_step(
            these, [views_of(step, world=world)], plan=schedule_at(step, schedule=schedule), num_micro_batches=1
        )
        losses.append(logged_values(result, world=world))
        state = gather_to_main(these.networks, world=world)
        states.append({name: value.clone().numpy() for name, value in state.items()})
    return {"losses": losses, "states": states}


def courses(world: World, cases: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """`course` for each of several settings."""
    return {name: course(world, words) for name, words in cases.items()}


def test_two_processes_freeze_and_thaw_as_one_does() -> None:
    cases = {name: with_strategy(name) for name in ("SHARD_GRAD_OP", "FULL_SHARD", "NO_SHARD")}
    alone = on_ranks(courses, {"one": ()}, size=1)[0]["one"]
    assert_thaws(alone["states"])
    for name, together in on_ranks(courses, cases, size=2)[0].items():
        assert_thaws(together["states"])
        for one, two in zip(alone["losses"], together["losses"], strict=True):
            for number, value in one.items():
                assert two[number] == pytest.approx(value, rel=1e-4, abs=1e-5), (name, number)
        for tensor, value in alone["states"][-1].items():
            np.testing.assert_allclose(
                together["states"][-1][tensor], value, rtol=1e-4, atol=5e-5, err_msg=f"{name} {tensor}"
            )


def assert_thaws(states: list[dict[str, np.ndarray]]) -> None:
    """The backbones of student and teacher stand still to the bit, and then move at every step."""
    moved = [
        max(float(np.abs(state[name] - states[0][name]).max()) for name in state if ".backbone." in name)
        for state in states
    ]
    assert moved[:NUM_FROZEN] == [0.0] * NUM_FROZEN
    assert all(value > 0 for value in moved[NUM_FROZEN:])


def test_the_schedule_of_a_run_freezes_for_the_steps_it_says() -> None:
    config = load_config(
        None,
        overrides=[
            "optim={lr: 1.0, min_lr: 0.1, total_steps: 20, warmup_steps: 4, freeze_last_layer_steps: 1}",
            "init_from={freeze_backbone_steps: 3, head_lr_factor: 10}",
            "student.pretrained_weights=given.pth",
        ],
    ).config
    schedule = build_schedule(
        config.optim, config.teacher, train=config.train, global_batch=8, init_from=config.init_from
    )
    plans = [schedule_at(step, schedule=schedule) for step in range(5)]
    assert [plan.is_backbone_frozen for plan in plans] == [True, True, True, False, False]
    assert [plan.backbone_lr for plan in plans] == [0, 0, 0, 1.0, 1.0]
    assert [plan.head_lr for plan in plans] == pytest.approx([0, 10 / 3, 20 / 3, 1.0, 1.0])
    assert [plan.last_layer_lr for plan in plans] == pytest.approx([0, 10 / 3, 20 / 3, 1.0, 1.0])
    assert [plan.lr for plan in plans] == pytest.approx([0, 1 / 3, 2 / 3, 1.0, 1.0])
