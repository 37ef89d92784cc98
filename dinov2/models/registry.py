"""A backbone by name.

In: the section `student` and the few numbers that are set elsewhere. Out: a `DinoVisionTransformer`, or its arguments.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from dinov2.config.schema import Student
from dinov2.errors import ConfigError
from dinov2.models.vision_transformer import (
    SIZES,
    DinoVisionTransformer,
    vit_base,
    vit_giant2,
    vit_large,
    vit_small,
)

CUSTOM = "vit_custom"
ARCHITECTURES: dict[str, Callable[..., DinoVisionTransformer]] = {
    "vit_small": vit_small,
    "vit_base": vit_base,
    "vit_large": vit_large,
    "vit_giant2": vit_giant2,
    CUSTOM: DinoVisionTransformer,
}


def build_backbone(student: Student, *, img_size: int, drop_path_rate: float, attention: str) -> DinoVisionTransformer:
    """The network that `student` describes, for pictures of `img_size` pixels a side.

    `drop_path_rate` is an argument because the teacher has none. `attention` is a name of `layers.choose_attention`.

    Raises:
        ConfigError: unknown architecture, attention that cannot be had, or sizes that do not fit together.
    """
    arguments = architecture_arguments(student, img_size=img_size)
    return ARCHITECTURES[student.arch](
        **arguments,
        drop_path_rate=drop_path_rate,
        drop_path_uniform=student.drop_path_uniform,
        attention=attention,
    )


def architecture_arguments(student: Student, *, img_size: int) -> dict[str, Any]:
    """The arguments of `DinoVisionTransformer` that fix its parameters and what it computes; plain values for a card.

    Raises:
        ConfigError: unknown architecture, or sizes that do not fit together.
    """
    size = _size(student)
    if img_size % student.patch_size:
        raise ConfigError(f"crops of {img_size} pixels are no multiple of student.patch_size={student.patch_size}.")
    if size["embed_dim"] % size["num_heads"]:
        raise ConfigError(
            f"student.embed_dim={size['embed_dim']} is no multiple of student.num_heads={size['num_heads']}."
        )
    return {
        "img_size": img_size,
        "patch_size": student.patch_size,
        "in_chans": student.in_chans,
        **size,
        "qkv_bias": student.qkv_bias,
        "ffn_bias": student.ffn_bias,
        "proj_bias": student.proj_bias,
        "init_values": student.layerscale,
        "ffn_layer": student.ffn_layer,
        "block_chunks": student.block_chunks,
        "num_register_tokens": student.num_register_tokens,
        "interpolate_antialias": student.interpolate_antialias,
        "interpolate_offset": student.interpolate_offset,
    }


def _size(student: Student) -> dict[str, Any]:
    if student.arch == CUSTOM:
        return {
            "embed_dim": student.embed_dim,
            "depth": student.depth,
            "num_heads": student.num_heads,
            "mlp_ratio": student.mlp_ratio,
        }
    if student.arch not in SIZES:
        nearest = get_close_matches(student.arch, ARCHITECTURES, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"student.arch is {student.arch!r}; did you mean {nearest!r}? There are {', '.join(ARCHITECTURES)}."
        )
    return dict(SIZES[student.arch])
