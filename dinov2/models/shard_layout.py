"""What lies where in the flat parameters of FSDP: names and shapes for values that have lost them.

In: per unit one vector, or per parameter the pieces of all ranks. Out: whole tensors under public names.

A unit is the backbone's root, a chunk of its blocks, or a head. FSDP lays parameters end to end in the order of
`module.named_parameters()`, the units inside left out. Legend: D width, N patches, R registers, K prototypes.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.config.schema import Config
from dinov2.errors import ConfigError, WeightsError
from dinov2.layers import DINOHead
from dinov2.models.position_table import square_grid
from dinov2.models.registry import ARCHITECTURES, architecture_arguments
from dinov2.models.timm_names import StateDict
from dinov2.models.vision_transformer import SIZES

RUN_CONFIG = "config.yaml"
CHUNKS = "backbone.blocks."
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
BY_WIDTH = ("qkv.weight", "attn.proj.weight", "fc1.weight", "w12.weight")  # [., D]
TO_WIDTH = ("fc2.weight", "w3.weight")  # [D, .]
CHANNELS = (3, 1)
PATCHES, REGISTERS, FFNS = (14, 16, 8), (0, 4), ("mlp", "swiglufused")  # of networks that only sizes tell
PUBLIC_HEAD = {"nlayers": 3, "hidden_dim": 2048, "bottleneck_dim": 256}
Layout = list[tuple[str, torch.Size]]


def by_name(pieces: Mapping[str, Sequence[Tensor]], *, source: Path) -> StateDict:
    """Whole tensors from what each rank has of each parameter; the shapes follow from the names and the width.

    Raises:
        WeightsError: sizes that no network of this kind has.
    """
    flat = {name: parts[0] if name.endswith(BUFFERS) else _end_to_end(parts) for name, parts in pieces.items()}
    width = flat["backbone.norm.weight"].numel() if "backbone.norm.weight" in flat else 0
    try:
        return {name: tensor.reshape(_shape(name, flat, width=width)) for name, tensor in flat.items()}
    except (RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(f"{source}: its parts do not make up a network of DINOv2 ({error}).") from error


def by_unit(units: Mapping[str, Tensor], *, source: Path, arch: str | None) -> StateDict:
    """Whole tensors from the flat parameters of units called "backbone", "backbone.blocks.0", "dino_head" ...

    Raises:
        WeightsError: neither a `config.yaml` beside the files nor the sizes say what lies in them.
    """
    config = _config_of(source)
    chunks = sorted((name for name in units if name.startswith(CHUNKS)), key=lambda name: int(name.split(".")[2]))
    backbone = [units["backbone"], *(units[name] for name in chunks)]
    backbone_layout = _said(config, arch=arch) if config else _guessed(backbone, source=source, arch=arch)
    whole = {f"backbone.{name}": tensor for name, tensor in _cut_backbone(backbone, backbone_layout, source=source)}
    width = dict(backbone_layout)["norm.weight"][0]
    for head in (name for name in units if not name.startswith("backbone")):
        layout = _head_layout(head, units[head], width=width, config=config, source=source)
        whole |= {f"{head}.{name}": tensor for name, tensor in _cut(units[head], layout, source=f"{source} ({head})")}
    return whole


def _end_to_end(parts: Sequence[Tensor]) -> Tensor:
    """A parameter that lies whole in one rank's part keeps its shape there; elsewhere parts are vectors."""
    return torch.cat([part.flatten() for part in parts])


def _shape(name: str, flat: StateDict, *, width: int) -> tuple[int, ...]:
    part, _, inside = name.partition(".")
    if part != "backbone":
        return _head_shape(inside, flat, head=part)
    if inside in ("cls_token", "pos_embed", "register_tokens"):
        return (1, -1, width)
    if inside == "mask_token":
        return (1, width)
    if inside == "patch_embed.proj.weight":
        values = flat[name].numel() // width
        channels = next((number for number in CHANNELS if square_grid(values // number) and values % number == 0), 1)
        side = round((values / channels) ** 0.5)
        return (width, channels, side, side)
    if inside.endswith(BY_WIDTH):
        return (-1, width)
    return (width, -1) if inside.endswith(TO_WIDTH) else (-1,)


def _head_shape(inside: str, flat: StateDict, *, head: str) -> tuple[int, ...]:
    """A matrix has more values than its bias; a norm as many."""
    if inside.endswith(BUFFERS):
        return tuple(flat[f"{head}.{inside}"].shape)
    if inside == "last_layer.weight_g":
        return (-1, 1)
    if inside == "last_layer.weight_v":
        return (flat[f"{head}.last_layer.weight_g"].numel(), -1)
    bias = flat.get(f"{head}.{inside.removesuffix('weight')}bias")
    if inside.endswith("weight") and bias is not None and bias.numel() != flat[f"{head}.{inside}"].numel():
        return (bias.numel(), -1)
    return (-1,)


def _config_of(folder: Path) -> Config | None:
    """The run's configuration where it lies beside the files."""
    file = folder / RUN_CONFIG
    if not file.is_file():
        return None
    from dinov2.config.load import load_config  # OmegaConf, which no other kind of weights needs

    try:
        return load_config(file).config
    except ConfigError as error:
        raise WeightsError(f"{file}: says what lies in the checkpoint, and cannot be read. {error}") from error


def _said(config: Config, *, arch: str | None) -> Layout:
    if arch and arch != config.student.arch:
        raise WeightsError(f"the run's {RUN_CONFIG} says student.arch={config.student.arch}, and not {arch}.")
    arguments = architecture_arguments(config.student, img_size=config.crops.global_crops_size)
    return _layout_of(config.student.arch, **arguments)


def _layout_of(arch: str, **arguments: Any) -> Layout:
    with torch.device("meta"):
        network = ARCHITECTURES[arch](**arguments)
    return _layout(network)


def _layout(module: nn.Module) -> Layout:
    return [(name, parameter.shape) for name, parameter in module.named_parameters()]


def _guessed(units: Sequence[Tensor], *, source: Path, arch: str | None) -> Layout:
    """The one public architecture whose root and chunks have these sizes."""
    sizes = [unit.numel() for unit in units]
    tried = [_fitted(said, sizes) for said in _possible(arch)]
    found = [said for said in tried if said is not None]
    if len(found) == 1:
        return _layout_of(**found[0])
    names = "; ".join(f"{one['arch']}/{one['patch_size']} at {one['img_size']} pixels" for one in found)
    what = f"fit several architectures ({names})" if found else f"are those of no {arch or 'public architecture'}"
    raise WeightsError(
        f"{source}: {sum(sizes):,} values in {len(sizes)} flat parameters {what}. "
        f"Put the run's {RUN_CONFIG} beside the files{'' if arch else ', or say the architecture'}."
    )


def _possible(arch: str | None) -> Iterator[dict[str, Any]]:
    for name in SIZES if arch is None else (arch,):
        for patch in PATCHES:
            for ffn in FFNS:
                yield {"arch": name, "patch_size": patch, "ffn_layer": ffn}


def _fitted(said: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, Any] | None:
    """With the size of pictures and the registers that make up the rest of the root; None where nothing does.

    Named architectures are fixed in width and depth, so one network with a table of a single patch says all but that.
    """
    layout = _smallest(**said)
    width = dict(layout)["norm.weight"][0]
    of_block = sum(shape.numel() for name, shape in layout if name.startswith("blocks.0."))
    depth = len({name.split(".")[1] for name, _ in layout if name.startswith("blocks.")})
    fixed = sum(shape.numel() for _, shape in layout) - depth * of_block - width  # but the row of its one patch
    root = sizes[0] - (0 if len(sizes) > 1 else depth * of_block)
    if len(sizes) > 1 and (any(size % of_block for size in sizes[1:]) or sum(sizes[1:]) != depth * of_block):
        return None
    rows, rest = divmod(root - fixed, width)
    for registers in REGISTERS:
        grid = square_grid(rows - registers) if rows > registers else None
        if not rest and grid:
            side = grid[0] * said["patch_size"]
            return {**said, "img_size": side, "num_register_tokens": registers, "init_values": 1.0}
    return None


@cache
def _smallest(**said: Any) -> Layout:
    return _layout_of(**said, img_size=said["patch_size"], init_values=1.0)


def _cut_backbone(units: Sequence[Tensor], layout: Layout, *, source: Path) -> Iterator[tuple[str, Tensor]]:
    """The root first, then the chunks of blocks; a backbone that is one unit has them between its other parameters."""
    where = f"{source} (backbone)"
    if len(units) == 1:
        yield from _cut(units[0], layout, source=where)
        return
    yield from _cut(units[0], [entry for entry in layout if not entry[0].startswith("blocks.")], source=where)
    blocks = [entry for entry in layout if entry[0].startswith("blocks.")]
    yield from _cut(torch.cat(list(units[1:])), blocks, source=where)


def _cut(vector: Tensor, layout: Layout, *, source: str) -> Iterator[tuple[str, Tensor]]:
    wanted = sum(shape.numel() for _, shape in layout)
    if vector.numel() != wanted:
        raise WeightsError(f"{source}: {vector.numel():,} values in the files, {wanted:,} in its architecture.")
    pieces = torch.split(vector, [shape.numel() for _, shape in layout])
    for (name, shape), piece in zip(layout, pieces, strict=True):
        yield name, piece.view(shape)


def _head_layout(name: str, unit: Tensor, *, width: int, config: Config | None, source: Path) -> Layout:
    """By the run's configuration, else the public sizes with as many prototypes as there are values left."""
    if config is not None:
        section = config.ibot if name == "ibot_head" else config.dino
        sizes: dict[str, Any] = {
            "out_dim": section.head_n_prototypes,
            "nlayers": section.head_nlayers,
            "hidden_dim": section.head_hidden_dim,
            "bottleneck_dim": section.head_bottleneck_dim,
        }
    else:
        each = PUBLIC_HEAD["bottleneck_dim"] + 1  # values of a prototype: its row, and the length of it
        without = _values_of_head(in_dim=width, out_dim=1, **PUBLIC_HEAD) - each
        prototypes, rest = divmod(unit.numel() - without, each)
        if rest or prototypes < 1:
            raise WeightsError(
                f"{source}: its {name} of {unit.numel():,} values is none of the public sizes. "
                f"Put the run's {RUN_CONFIG} beside the files."
            )
        sizes = {"out_dim": prototypes, **PUBLIC_HEAD}
    with torch.device("meta"):
        return _layout(DINOHead(in_dim=width, **sizes))


def _values_of_head(**arguments: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DINOHead(**arguments).parameters())
