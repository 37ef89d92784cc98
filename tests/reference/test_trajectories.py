"""Four optimisation steps of the public code, reproduced by the step that trains here."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dinov2.batch import Views
from dinov2.config import schema
from dinov2.config.load import load_config
from dinov2.distributed import World
from dinov2.optim.schedules import StepPlan
from dinov2.train.build import build_tools
from dinov2.train.step import StepResult, StepTools, train_step

from .recovered_start import is_missing, recover_start
from .reference_cases import case_name, cases, load_case, under

CASES = cases("trajectory")


RENAMED = {"init_values": "layerscale"}


def config_of(case: dict) -> schema.Config:
    vit = {RENAMED.get(name, name): value for name, value in case["vit_kwargs"].items() if name != "img_size"}
    words = {f"student.{name}": value for name, value in vit.items()} | {"student.arch": "vit_custom"}
    for section in ("dino", "ibot"):
        sizes = case[f"{section}_head"]
        words[f"{section}.head_n_prototypes"] = sizes["out_dim"]
        words |= {f"{section}.head_{name}": sizes[name] for name in ("hidden_dim", "bottleneck_dim", "nlayers")}
    words |= {
        "crops.global_crops_size": case["vit_kwargs"]["img_size"],
        "crops.local_crops_size": 3 * case["vit_kwargs"]["patch_size"],
        "student.drop_path_rate": 0.0,
        "dino.koleo_loss_weight": case["koleo_loss_weight"],
        "optim.layerwise_decay": case["layerwise_decay"],
        "optim.patch_embed_lr_mult": case["patch_embed_lr_mult"],
        "optim.clip_grad": case["clip_grad"],
        "optim.adamw_beta1": case["adamw_betas"][0],
        "optim.adamw_beta2": case["adamw_betas"][1],
        "runtime.precision": "fp32",
        "runtime.device": "cpu",
    }
    return load_config(None, overrides=[f"{key}={value}" for key, value in words.items()] + case["overrides"]).config


def tools_of(case: dict[str, Any], start: dict[str, Tensor]) -> StepTools:
    tools = build_tools(config_of(case), world=World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))
    tools.networks.student.load_state_dict(start, strict=True)
    tools.networks.align_teacher()
    return tools


def steps_of(case: dict[str, Any], tensors: dict[str, Tensor], tools: StepTools) -> Iterator[StepResult]:
    for i, step in enumerate(case["steps"]):
        views = Views(
            global_crops=tensors[f"batch.{i}.global_crops"],
            local_crops=tensors[f"batch.{i}.local_crops"],
            masks=tensors[f"batch.{i}.masks"],
        )
        plan = StepPlan(
            lr=step["lr"],
            last_layer_lr=step["last_layer_lr"],
            weight_decay=step["weight_decay"],
            teacher_momentum=step["teacher_momentum"],
            teacher_temperature=step["teacher_temp"],
        )
        yield train_step(tools, [views], plan=plan, step=i + 1, num_micro_batches=1)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def start_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded start; where the file holds the end in its place, the start that leads to that end."""
    start, student, teacher = (under(tensors, name) for name in ("init.student", "final.student", "final.teacher"))
    if not is_missing(start, student):
        return start

    def replay(guess: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        tools = tools_of(case, guess)
        students = [copied(tools.networks.student)]
        students += [copied(tools.networks.student) for _ in steps_of(case, tensors, tools)]
        return [*students, copied(tools.networks.teacher)]

    return recover_start(student, teacher, momenta=[s["teacher_momentum"] for s in case["steps"]], replay=replay)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no time lost on handing out work that is too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_losses_gradient_norms_and_weights_follow_the_public_trajectory(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    tools = tools_of(case, start_of(case, tensors))
    for i, (step, result) in enumerate(zip(case["steps"], steps_of(case, tensors, tools), strict=True)):
        for name, value in step["losses"].items():
            assert float(result.values[name]) == pytest.approx(value, rel=1e-4), f"step {i}: {name}"
        for name, value in step["grad_norm_before_clip"].items():
            assert float(result.grad_norms[name]) == pytest.approx(value, rel=1e-4), f"step {i}: gradient of {name}"
    for part, module in (("student", tools.networks.student), ("teacher", tools.networks.teacher)):
        assert_close(dict(module.state_dict()), under(tensors, f"final.{part}"), atol=1e-4, rtol=0)
