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
from dinov2.distributed import World, gather_to_main, send_from_main
from dinov2.loss import chunks
from dinov2.optim.schedules import StepPlan
from dinov2.train.build import build_tools
from dinov2.train.step import StepResult, StepTools, logged_values, train_step
from tests.distributed.processes import on_ranks

from .recovered_start import State, is_missing, recover_start
from .reference_cases import case_name, cases, is_known, load_case, load_start, under

CASES = cases("trajectory")


RENAMED = {"init_values": "layerscale"}


def config_of(case: dict[str, Any], *further: str) -> schema.Config:
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
    return load_config(
        None, overrides=[f"{key}={value}" for key, value in words.items()] + case["overrides"] + list(further)
    ).config


def tools_of(case: dict[str, Any], start: dict[str, Tensor], *further: str) -> StepTools:
    tools = build_tools(
        config_of(case, *further), world=World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    )
    tools.networks.student.load_state_dict(start, strict=True)
    tools.networks.align_teacher()
    return tools


def part_of(crops: Tensor, world: World, *, num_pictures: int) -> Tensor:
    """The crops of this process's share of the pictures; crops are crop-major."""
    share = num_pictures // world.size
    return crops.unflatten(0, (-1, num_pictures))[:, world.rank * share : (world.rank + 1) * share].flatten(0, 1)


def steps_of(case: dict[str, Any], tensors: dict[str, Tensor], tools: StepTools) -> Iterator[StepResult]:
    for i, step in enumerate(case["steps"]):
        num_pictures = tensors[f"batch.{i}.global_crops"].shape[0] // 2
        names = ("global_crops", "local_crops", "masks")
        views = Views(
            **{name: part_of(tensors[f"batch.{i}.{name}"], tools.world, num_pictures=num_pictures) for name in names}
        )
        plan = StepPlan(
            lr=step["lr"],
            last_layer_lr=step["last_layer_lr"],
            weight_decay=step["weight_decay"],
            teacher_momentum=step["teacher_momentum"],
            teacher_temperature=step["teacher_temp"],
        )
        yield train_step(tools, [views], plan=plan, num_micro_batches=1)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def start_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded start; where the file holds the end in its place, the start that leads to that end.

    That is searched for, unless an earlier search left it beside the case (`recovered_start.py` says how it searches).
    """
    start, student, teacher = (under(tensors, name) for name in ("init.student", "final.student", "final.teacher"))
    if not is_missing(start, student):
        return start
    if is_known(case):
        return under(load_start(case), "init.student")

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


def assert_follows(case: dict[str, Any], told: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    for i, (step, (losses, norms)) in enumerate(zip(case["steps"], told, strict=True)):
        for name, value in step["losses"].items():
            assert losses[name] == pytest.approx(value, rel=1e-4), f"step {i}: {name}"
        for name, value in step["grad_norm_before_clip"].items():
            assert norms[name] == pytest.approx(value, rel=1e-4), f"step {i}: gradient of {name}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_losses_gradient_norms_and_weights_follow_the_public_trajectory(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    start = start_of(case, tensors)
    tools = tools_of(case, start)
    told = [told_by(result, world=tools.world) for result in steps_of(case, tensors, tools)]
    assert_follows(case, told)
    for part, module in (("student", tools.networks.student), ("teacher", tools.networks.teacher)):
        final, recorded = dict(module.state_dict()), under(tensors, f"final.{part}")
        assert_close(without_key_biases(final), without_key_biases(recorded), atol=1e-4, rtol=0)

    for strategy in ("FULL_SHARD", "NO_SHARD"):
        numbers = {name: value.numpy() for name, value in start.items()}
        both, other = on_ranks(half_a_trajectory, case, numbers, strategy)
        assert_follows(case, both["told"])
        assert_follows(case, other["told"])
        for part in ("student", "teacher"):
            final = {name: torch.from_numpy(value) for name, value in both[part].items()}
            recorded = under(tensors, f"final.{part}")
            assert_close(without_key_biases(final), without_key_biases(recorded), atol=1e-4, rtol=0)


FAST_PATHS = {
    "nothing computed again": ("runtime.activation_checkpointing=none",),
    "every block computed again": ("runtime.activation_checkpointing=full",),
    "explicit attention": ("runtime.attention=explicit",),
    "compiled": ("runtime.compile=always",),
}


@pytest.mark.parametrize("path", FAST_PATHS)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_every_fast_path_follows_the_public_trajectory(case: dict[str, Any], path: str) -> None:
    tensors = load_case(case)
    tools = tools_of(case, start_of(case, tensors), *FAST_PATHS[path])
    told = [told_by(result, world=tools.world) for result in steps_of(case, tensors, tools)]
    assert_follows(case, told)
    for part, module in (("student", tools.networks.student), ("teacher", tools.networks.teacher)):
        final, recorded = dict(module.state_dict()), under(tensors, f"final.{part}")
        assert_close(without_key_biases(final), without_key_biases(recorded), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_losses_in_chunks_of_three_rows_follow_the_public_trajectory(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LONGEST_CHUNK", 3)
    tensors = load_case(case)
    tools = tools_of(case, start_of(case, tensors))
    assert_follows(case, [told_by(result, world=tools.world) for result in steps_of(case, tensors, tools)])


def without_key_biases(state: State) -> State:
    """A bias of the keys changes no attention: its gradient is rounding alone, which AdamW makes as large as any."""
    kept = dict(state)
    for name in (name for name in state if name.endswith("attn.qkv.bias")):
        queries, _, values = state[name].chunk(3)
        kept[name] = torch.cat([queries, values])
    return kept


def told_by(result: StepResult, *, world: World) -> tuple[dict[str, float], dict[str, float]]:
    losses = logged_values(result, world=world)
    return losses, {name: float(value) for name, value in result.grad_norms.items()}


def half_a_trajectory(world: World, case: dict[str, Any], start: dict[str, Any], strategy: str) -> dict[str, Any]:
    """The same steps on one of two processes, each with half of every batch, over FSDP."""
    parts = ("backbone", "dino_head", "ibot_head")
    words = [f"compute_precision.{s}.{p}.sharding_strategy={strategy}" for s in ("student", "teacher") for p in parts]
    # The recorded steps saw the whole batch on one process: so must KoLeo.
    config = config_of(case, *words, "dino.koleo_over_all_processes=true")
    tools = build_tools(config, world=world)
    full = {name: torch.from_numpy(value) for name, value in start.items()}
    send_from_main(tools.networks.student, full if world.is_main else None, world=world)
    tools.networks.align_teacher()
    told = [told_by(result, world=world) for result in steps_of(case, load_case(case), tools)]
    finals = {
        part: {name: value.numpy() for name, value in gather_to_main(module, world=world).items()}
        for part, module in (("student", tools.networks.student), ("teacher", tools.networks.teacher))
    }
    return {"told": told} | finals
