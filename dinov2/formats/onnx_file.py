"""A backbone as ONNX, for any number of pictures of any size.

In: a `Source`. Out: `backbone.onnx` (and its weights beside it where they are above 1.5 GB), `backbone_card.json`, and
`dino_head.onnx`, `ibot_head.onnx` where heads are asked for; read back by onnxruntime and compared.

The exporter is torch's newer one (`dynamo=True`): it keeps the sizes as symbols and says where it cannot, where the
older one, deprecated, keeps whatever number it happened to be traced with. Both give the same numbers in onnxruntime.

Inputs and outputs are float32 in every format: a user's pictures are, and the cast costs nothing.
"""

import json
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.backbone_card import BackboneCard
from dinov2.errors import WeightsError
from dinov2.formats.file_card import card_of_files
from dinov2.formats.onnx_check import check_backbone, check_head
from dinov2.formats.onnx_graph import OnnxBackbone, OnnxHead
from dinov2.formats.source import Dtype, Source, Written
from dinov2.formats.writers import written_whole
from dinov2.models.libraries import library_errors, library_part
from dinov2.models.vision_transformer import DinoVisionTransformer

log = logging.getLogger(__name__)

BACKBONE = "backbone.onnx"
OPSET = 18  # the one that the exporter writes without converting; runtimes since 2023 have it
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
THEIR_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
TRACED = (2, 3, 4)  # pictures, patches down and across: all different, and none of them 1, which would be kept


def write_onnx(
    source: Source, folder: Path, *, dtype: Dtype = "float32", licence: str = "", with_heads: bool = False
) -> Written:
    """Writes the files and reads them back; see `dinov2.formats.writers.Writer`.

    `pixel_values` float32 [B, C, H, W], sides multiples of the patch -> `cls_token` [B, D], `patch_tokens` [B, N, D],
    both normed; a head: `tokens` [M, D] -> `logits` [M, K]. The properties of `backbone.onnx` hold mean, std, size,
    patch and the whole card. `float16` computes in float16.

    Raises WeightsError, also for bfloat16.
    """
    if dtype == "bfloat16":
        raise WeightsError(
            "--format onnx --dtype bfloat16: onnxruntime has no convolution in bfloat16, and before opset 22 nor has "
            "ONNX. Use float16 or float32."
        )
    for library in LIBRARIES:
        library_part(library, wanted_by="--format onnx")
    heads = dict(source.heads) if with_heads else {}
    card = card_of_files(source, heads=heads, dtype=dtype, licence=licence)
    number = getattr(torch, dtype)
    _check_range({"backbone": source.backbone, **heads}, number)
    with written_whole(folder) as partial:
        log.info("%s: writing; a ViT-B takes about half a minute", folder / BACKBONE)
        _export_backbone(source.backbone, partial / BACKBONE, dtype=number, said=_properties(source, card))
        checks = [check_backbone(partial / BACKBONE, source.backbone, dtype=dtype)]
        for name, head in heads.items():
            _export_head(OnnxHead(head, dtype=number), partial / f"{name}.onnx", width=source.backbone.embed_dim)
            checks.append(check_head(partial / f"{name}.onnx", head, dtype=dtype))
        card.write(partial)
    return Written(
        folder=folder,
        files=tuple(sorted(folder.iterdir())),
        checks=tuple(checks),
        next_step=f"python -c {shlex.quote(_first_run(folder / BACKBONE, source.backbone))}",
    )


def _first_run(path: Path, vit: DinoVisionTransformer) -> str:
    pictures = f'numpy.zeros({(1, vit.patch_embed.in_chans, *vit.patch_embed.img_size)}, "float32")'
    run = f'onnxruntime.InferenceSession({json.dumps(str(path))}).run(None, {{"pixel_values": {pictures}}})'
    return f"import numpy, onnxruntime; cls, patches = {run}; print(cls.shape, patches.shape)"


def _check_range(parts: Mapping[str, nn.Module], dtype: torch.dtype) -> None:
    for part, module in parts.items():
        for name, value in module.state_dict().items():
            if not value.to(dtype).isfinite().all():
                raise WeightsError(
                    f"{part}: {name} holds values beyond {dtype}'s range. Give --dtype float32, or look at the weights."
                )


def _export_backbone(vit: DinoVisionTransformer, path: Path, *, dtype: torch.dtype, said: Mapping[str, str]) -> None:
    rows, columns = vit.patch_embed.patch_size
    pictures, down, across = TRACED
    dims = {
        0: torch.export.Dim("batch"),
        2: rows * torch.export.Dim("patch_rows"),
        3: columns * torch.export.Dim("patch_columns"),
    }
    traced = torch.zeros(pictures, vit.patch_embed.in_chans, down * rows, across * columns)
    _export(
        OnnxBackbone(vit, dtype=dtype),
        traced,
        path,
        dims=dims,
        inputs=["pixel_values"],
        outputs={"cls_token": {}, "patch_tokens": {1: "patches"}},
        said=said,
    )


def _export_head(head: OnnxHead, path: Path, *, width: int) -> None:
    traced = torch.zeros(TRACED[0], width)
    _export(
        head, traced, path, dims={0: torch.export.Dim("tokens")}, inputs=["tokens"], outputs={"logits": {}}, said={}
    )


def _export(
    module: nn.Module,
    traced: Tensor,
    path: Path,
    *,
    dims: Mapping[int, Any],
    inputs: list[str],
    outputs: Mapping[str, Mapping[int, str]],
    said: Mapping[str, str],
) -> None:
    with _quiet(), library_errors(str(path), hint="pip install -U onnx onnxscript may help."):
        program = torch.onnx.export(
            module.eval(),
            (traced,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(dict(dims),),
            input_names=inputs,
            output_names=list(outputs),
            verbose=False,
        )
        assert program is not None
        program.model.producer_name = "dinov2"
        program.model.metadata_props.update(said)
        for output, names in zip(program.model.graph.outputs, outputs.values(), strict=True):
            for dim, name in names.items():
                assert output.shape is not None
                output.shape[dim] = name  # else a product of symbols
        program.save(path)


def _properties(source: Source, card: BackboneCard) -> dict[str, str]:
    """What a user of the file alone must know; ONNX holds text."""
    vit = source.backbone
    said = {
        "mean": card.mean,
        "std": card.std,
        "size": card.resolution_px,
        "patch_size": vit.patch_embed.patch_size,
        "num_register_tokens": vit.num_register_tokens,
        "backbone_card": asdict(card),
    }
    licence = card.provenance.get("licence")
    return {name: json.dumps(value) for name, value in said.items()} | ({"licence": licence} if licence else {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's account of every rule it applies, and its warnings of libraries that are not needed."""
    loggers = [logging.getLogger(name) for name in THEIR_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
