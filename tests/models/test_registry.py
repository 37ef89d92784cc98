import json
from dataclasses import replace

import pytest

from dinov2.config.schema import Student
from dinov2.errors import ConfigError
from dinov2.layers import PatchEmbed
from dinov2.layers.swiglu import SwiGLUFFN
from dinov2.models import DinoVisionTransformer, build_backbone
from dinov2.models.registry import architecture_arguments

CUSTOM = Student(arch="vit_custom", patch_size=14, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2.0)


def build(student: Student, *, img_size: int = 28, drop_path_rate: float = 0.0) -> DinoVisionTransformer:
    return build_backbone(student, img_size=img_size, drop_path_rate=drop_path_rate, attention="sdpa")


def test_a_custom_architecture_has_the_sizes_of_its_section() -> None:
    vit = build(CUSTOM)
    assert (vit.embed_dim, vit.n_blocks, vit.num_heads) == (24, 2, 3)
    assert vit.blocks[0].mlp.fc1.out_features == 48


def test_a_named_architecture_ignores_the_custom_sizes() -> None:
    vit = build(replace(CUSTOM, arch="vit_small"))
    assert (vit.embed_dim, vit.n_blocks, vit.num_heads) == (384, 12, 6)


def test_every_key_of_the_section_reaches_the_network() -> None:
    vit = build(
        replace(
            CUSTOM,
            in_chans=1,
            num_register_tokens=4,
            ffn_layer="swiglufused",
            layerscale=0.0,
            qkv_bias=False,
            proj_bias=False,
            ffn_bias=False,
            interpolate_antialias=True,
            interpolate_offset=0.0,
            drop_path_uniform=False,
        ),
        drop_path_rate=0.2,
    )
    names = set(vit.state_dict())
    assert isinstance(vit.patch_embed, PatchEmbed)
    assert vit.patch_embed.in_chans == 1
    assert vit.register_tokens.shape == (1, 4, 24)
    assert isinstance(vit.blocks[0].mlp, SwiGLUFFN)
    assert not any(
        "ls1" in name or name.endswith(("qkv.bias", "proj.bias", "w12.bias"))
        for name in names - {"patch_embed.proj.bias"}
    )
    assert (vit.interpolate_antialias, vit.interpolate_offset) == (True, 0.0)
    assert [block.drop_path_rate for block in vit.blocks] == [0.0, 0.2]


def test_the_arguments_of_an_architecture_survive_json_and_build_the_same_network() -> None:
    arguments = json.loads(json.dumps(architecture_arguments(CUSTOM, img_size=28)))
    shapes = {name: tensor.shape for name, tensor in DinoVisionTransformer(**arguments).state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in build(CUSTOM).state_dict().items()}


def test_an_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"student\.arch is 'vit_bse'; did you mean 'vit_base'"):
        build(replace(CUSTOM, arch="vit_bse"))


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"crops of 30 pixels are no multiple of student\.patch_size=14"):
        build(CUSTOM, img_size=30)
    with pytest.raises(ConfigError, match=r"embed_dim=24 is no multiple of student\.num_heads=5"):
        build(replace(CUSTOM, num_heads=5))
