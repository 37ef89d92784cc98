import pytest
import torch
from torch import nn

from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer
from dinov2.optim import StepPlan, apply_plan, build_param_groups, parameter_settings

DECAY = {"layerwise_decay": 0.9, "patch_embed_lr_mult": 0.2}
PLAN = StepPlan(lr=2.0, last_layer_lr=0.5, weight_decay=0.1, teacher_momentum=0.9, teacher_temperature=0.05)


def student() -> nn.ModuleDict:
    vit = DinoVisionTransformer(img_size=28, patch_size=14, embed_dim=8, depth=12, num_heads=2, init_values=1e-5)
    return nn.ModuleDict({"backbone": vit, "dino_head": DINOHead(8, 10, hidden_dim=8, bottleneck_dim=4)})


@pytest.mark.parametrize(
    ("name", "lr", "wd", "last"),
    [
        ("cls_token", 0.9**13, 1.0, False),
        ("register_tokens", 0.9**13, 1.0, False),
        ("patch_embed.proj.bias", 0.9**13 * 0.2, 0.0, False),
        ("blocks.0.attn.qkv.weight", 0.9**12, 1.0, False),
        ("blocks.2.11.ls2.gamma", 0.9, 0.0, False),
        ("module.blocks.11.norm1.weight", 0.9, 0.0, False),
        ("norm.weight", 1.0, 0.0, False),
    ],
)
def test_the_settings_of_a_parameter_follow_from_its_name(name: str, lr: float, wd: float, last: bool) -> None:
    found = parameter_settings(name, num_blocks=12, **DECAY)
    assert (found.lr_multiplier, found.wd_multiplier, found.is_last_layer) == (pytest.approx(lr, rel=1e-12), wd, last)


def test_a_vit_of_twelve_blocks_and_a_head_make_31_groups() -> None:
    groups = build_param_groups(student(), **DECAY)
    assert [group["name"] for group in groups].count("backbone") == 28
    assert [group["name"] for group in groups].count("dino_head") == 3


def test_every_parameter_is_in_exactly_one_group_and_frozen_ones_in_none() -> None:
    modules = student()
    modules["backbone"].pos_embed.requires_grad_(False)
    grouped = [id(p) for group in build_param_groups(modules, **DECAY) for p in group["params"]]
    expected = [id(p) for p in modules.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(expected)


def test_groups_come_in_the_same_order_every_time() -> None:
    first, second = (build_param_groups(student(), **DECAY) for _ in range(2))
    keys = ("name", "lr_multiplier", "wd_multiplier", "is_last_layer")
    assert [[g[k] for k in keys] for g in first] == [[g[k] for k in keys] for g in second]
    assert [[p.shape for p in g["params"]] for g in first] == [[p.shape for p in g["params"]] for g in second]


def test_a_plan_sets_rate_and_decay_of_every_group_of_an_optimiser() -> None:
    optimizer = torch.optim.AdamW(build_param_groups(student(), **DECAY), lr=0.0)
    apply_plan(optimizer.param_groups, PLAN)
    for group in optimizer.param_groups:
        assert group["lr"] == (0.5 if group["is_last_layer"] else 2.0) * group["lr_multiplier"]
        assert group["weight_decay"] == 0.1 * group["wd_multiplier"]
    assert sum(group["is_last_layer"] for group in optimizer.param_groups) == 1


def test_a_frozen_last_layer_does_not_move_while_its_moments_grow() -> None:
    modules = student()
    optimizer = torch.optim.AdamW(build_param_groups(modules, **DECAY), lr=0.0)
    frozen = StepPlan(lr=0.1, last_layer_lr=0.0, weight_decay=0.1, teacher_momentum=0.9, teacher_temperature=0.05)
    apply_plan(optimizer.param_groups, frozen)
    last = modules["dino_head"].last_layer.weight_v
    before = last.detach().clone()
    modules["dino_head"](torch.randn(3, 8)).pow(2).sum().backward()
    optimizer.step()
    assert torch.equal(last, before)
    assert float(optimizer.state[last]["exp_avg"].abs().sum()) > 0
