"""Schedules and parameter groups are those of the public code."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from dinov2.config.load import load_config
from dinov2.models.key_maps import flat_blocks
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.optim import build_param_groups, build_schedule, parameter_settings, schedule_at
from dinov2.optim.param_groups import count_blocks

from .reference_cases import table

SCHEDULES, PARAM_GROUPS = table("schedules.json"), table("param_groups.json")
COLUMNS = {
    "lr": "lr",
    "last_layer_lr": "last_layer_lr",
    "weight_decay": "weight_decay",
    "teacher_momentum": "teacher_momentum",
    "teacher_temp": "teacher_temperature",
}


@pytest.mark.parametrize("case", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_scheduled_value_agrees_with_the_public_tables(case: dict[str, Any]) -> None:
    config = load_config(None, overrides=case["overrides"]).config
    schedule = build_schedule(config.optim, config.teacher, train=config.train, global_batch=1024)
    plans = [schedule_at(step, schedule=schedule) for step in case["iterations"]]
    for column, attribute in COLUMNS.items():
        ours = [getattr(plan, attribute) for plan in plans]
        assert ours == pytest.approx(case[column], rel=1e-9, abs=1e-15), column


def settings_of(names: list[str], *, decay: float, patch_embed: float) -> dict[str, list[Any]]:
    num_blocks = count_blocks(names)
    found = {}
    for name in names:
        s = parameter_settings(name, num_blocks=num_blocks, layerwise_decay=decay, patch_embed_lr_mult=patch_embed)
        found[name] = [s.lr_multiplier, s.wd_multiplier, s.is_last_layer]
    return found


@pytest.mark.parametrize("part", ["backbone", "head"])
@pytest.mark.parametrize("entry", PARAM_GROUPS.values(), ids=PARAM_GROUPS.keys())
def test_every_parameter_has_the_public_multipliers(entry: dict[str, Any], part: str) -> None:
    ours = settings_of(list(entry[part]), decay=entry["layerwise_decay"], patch_embed=entry["patch_embed_lr_mult"])
    assert ours == entry[part]


def vit_of(shapes: dict[str, list[int]], arch: str) -> DinoVisionTransformer:
    """The architecture that has these shapes, without memory for its weights."""
    patch = shapes["patch_embed.proj.weight"]
    side = round((shapes["pos_embed"][1] - 1) ** 0.5) * patch[-1]
    with torch.device("meta"):
        return DinoVisionTransformer(
            **SIZES[arch],
            img_size=side,
            patch_size=patch[-1],
            in_chans=patch[1],
            num_register_tokens=shapes.get("register_tokens", [0, 0])[1],
            init_values=1e-5 if "blocks.0.ls1.gamma" in shapes else None,
            ffn_layer="swiglu" if "blocks.0.mlp.w12.weight" in shapes else "mlp",
        )


@pytest.mark.parametrize(("name", "entry"), PARAM_GROUPS.items(), ids=PARAM_GROUPS.keys())
def test_whole_architectures_have_the_public_names_shapes_and_groups(name: str, entry: dict[str, Any]) -> None:
    arch = re.match(r"(vit_[a-z]+2?)", name)
    assert arch is not None
    shapes = {key: list(shape) for key, shape in flat_blocks(entry["state_dict_shapes"]).items()}
    vit = vit_of(shapes, arch.group(1))
    assert {key: list(tensor.shape) for key, tensor in vit.state_dict().items()} == shapes
    groups = build_param_groups(
        nn.ModuleDict({"backbone": vit}),
        layerwise_decay=entry["layerwise_decay"],
        patch_embed_lr_mult=entry["patch_embed_lr_mult"],
    )
    ours = {(g["lr_multiplier"], g["wd_multiplier"], g["is_last_layer"]): len(g["params"]) for g in groups}
    assert ours == Counter(tuple(settings) for settings in entry["backbone"].values())
