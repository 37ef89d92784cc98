import copy
from dataclasses import replace

import pytest
import torch

from dinov2.batch import Views
from dinov2.config.load import load_config
from dinov2.distributed import World
from dinov2.optim.schedules import StepPlan
from dinov2.train.build import build_tools
from dinov2.train.step import StepTools, train_step

PLAN = StepPlan(lr=1e-3, last_layer_lr=1e-3, weight_decay=0.04, teacher_momentum=0.9, teacher_temperature=0.05)
WORDS = [
    "student.arch=vit_custom",
    "student.patch_size=8",
    "student.embed_dim=32",
    "student.depth=2",
    "student.num_heads=2",
    "student.drop_path_rate=0",
    "student.layerscale=1",
    "crops.global_crops_size=32",
    "crops.local_crops_size=16",
    "dino.head_n_prototypes=48",
    "dino.head_hidden_dim=32",
    "dino.head_bottleneck_dim=16",
    "runtime.device=cpu",
]


def tools(*words: str) -> StepTools:
    config = load_config(None, overrides=[*WORDS, "runtime.precision=fp32", *words]).config
    return build_tools(config, world=World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))


def views(seed: int = 0, *, num_pictures: int = 4) -> Views:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2 * num_pictures, 16, dtype=torch.bool)
    masks[::2, :5] = True
    return Views(
        global_crops=torch.randn(2 * num_pictures, 3, 32, 32, generator=generator),
        local_crops=torch.randn(2 * num_pictures, 3, 16, 16, generator=generator),
        masks=masks,
    )


def weights(these: StepTools) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in these.networks.state_dict().items()}


def test_a_step_moves_the_student_and_the_teacher_follows_by_its_momentum() -> None:
    these = tools()
    before = weights(these)
    train_step(these, [views()], plan=PLAN, num_micro_batches=1)
    after = weights(these)
    for name in ("backbone.blocks.0.attn.qkv.weight", "dino_head.last_layer.weight_v"):
        student, teacher = after[f"student.{name}"], after[f"teacher.{name}"]
        assert not torch.equal(student, before[f"student.{name}"])
        torch.testing.assert_close(teacher, 0.9 * before[f"teacher.{name}"] + 0.1 * student)


def test_momentum_one_leaves_the_teacher_alone() -> None:
    these = tools()
    before = weights(these)
    train_step(these, [views()], plan=replace(PLAN, teacher_momentum=1.0), num_micro_batches=1)
    for name, value in weights(these).items():
        if name.startswith("teacher."):
            assert torch.equal(value, before[name])


def test_a_frozen_last_layer_stays_while_the_rest_moves() -> None:
    these = tools()
    before = weights(these)
    train_step(these, [views()], plan=replace(PLAN, last_layer_lr=0.0), num_micro_batches=1)
    after = weights(these)
    assert torch.equal(after["student.dino_head.last_layer.weight_v"], before["student.dino_head.last_layer.weight_v"])
    assert not torch.equal(after["student.dino_head.mlp.0.weight"], before["student.dino_head.mlp.0.weight"])


def test_the_same_micro_batch_twice_is_that_batch_once() -> None:
    """Centering, so that the assignment of one micro-batch does not depend on the other; the loss is a mean."""
    once, twice = tools(), tools("runtime.gradient_accumulation_steps=2")
    first = train_step(once, [views()], plan=PLAN, num_micro_batches=1)
    one_center = once.networks.dino_loss.center.clone()
    twice.networks.load_state_dict(tools().networks.state_dict())
    second = train_step(twice, [views(), views()], plan=PLAN, num_micro_batches=2)
    assert first.values.keys() == second.values.keys()
    torch.testing.assert_close(first.values["koleo_loss"], second.values["koleo_loss"])
    assert not torch.equal(twice.networks.dino_loss.center, one_center), "each micro-batch moves the centre"


@pytest.mark.parametrize("word", ["runtime.precision=bf16", "runtime.precision=fp16"])
def test_half_precision_gives_nearly_the_same_losses(word: str) -> None:
    exact = train_step(tools(), [views()], plan=PLAN, num_micro_batches=1)
    half = train_step(tools(word), [views()], plan=PLAN, num_micro_batches=1)
    for name in ("total_loss", "ibot_loss", "koleo_loss"):
        assert float(half.values[name]) == pytest.approx(float(exact.values[name]), rel=0.05)


def test_a_loss_that_is_not_finite_names_term_and_rank_and_changes_nothing() -> None:
    these = tools("train.centering=centering")
    train_step(these, [views()], plan=PLAN, num_micro_batches=1)  # so that there is a memory to lose
    before, memory = weights(these), copy.deepcopy(these.optimizer.state_dict())
    bad = views()
    bad.global_crops[0, 0, 0, 0] = float("nan")
    result = train_step(these, [views(), bad], plan=PLAN, num_micro_batches=2)
    assert result.skipped
    assert {(f.rank, f.micro_batch) for f in result.findings} == {(0, 1)}
    assert {"total_loss", "dino_global_crops_loss", "ibot_loss"} <= {f.name for f in result.findings}
    for name, value in weights(these).items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(these.optimizer.state_dict()["state"], memory["state"], rtol=0, atol=0)
    assert not train_step(these, [views()], plan=PLAN, num_micro_batches=1).skipped


def test_a_gradient_that_is_not_finite_names_its_parameters_and_changes_nothing() -> None:
    these = tools("train.centering=centering", "dino.koleo_loss_weight=0")
    before = weights(these)
    weight = these.networks.student["backbone"].blocks[1].mlp.fc1.weight
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    result = train_step(these, [views()], plan=PLAN, num_micro_batches=1)
    handle.remove()
    assert [(f.name, f.micro_batch) for f in result.findings] == [("backbone.blocks.1.mlp.fc1.weight", None)]
    for name, value in weights(these).items():
        assert torch.equal(value, before[name]), name


def test_an_overflow_under_the_scaler_is_skipped_and_counted() -> None:
    these = tools("runtime.precision=fp16")
    these.scaler.load_state_dict(these.scaler.state_dict() | {"scale": 2.0**60})
    before = weights(these)
    result = train_step(these, [views()], plan=PLAN, num_micro_batches=1)
    assert result.skipped
    assert these.scaler.get_scale() < 2.0**60
    for name, value in weights(these).items():
        if "center" not in name:
            assert torch.equal(value, before[name])
    these.scaler.load_state_dict(these.scaler.state_dict() | {"scale": 8.0})
    assert not train_step(these, [views()], plan=PLAN, num_micro_batches=1).skipped
