"""What was written as ONNX, read back by onnx's checker and by onnxruntime, against our own networks.

In: a file, and the network it was made from. Out: a sentence with the largest difference.

Legend: B pictures, C channels, D width, K prototypes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.formats.source import Dtype
from dinov2.layers import DINOHead
from dinov2.models.libraries import library_errors, library_part
from dinov2.models.vision_transformer import DinoVisionTransformer

LIMITS: dict[Dtype, float] = {"float32": 1e-4, "float16": 5e-2}
"""The largest difference from our float32 features that is let pass, of features of about 1."""
SMALL_GRIDS = ((4, 7), (11, 6))  # patches down and across; the third size is that of the position table
TOKENS = 8


def check_backbone(path: Path, vit: DinoVisionTransformer, *, dtype: Dtype) -> str:
    """Compares features of random pictures at three sizes.  Raises WeightsError above `LIMITS`, times the features."""
    session = _session(path)
    patch_rows, patch_columns = vit.patch_embed.patch_size
    generator = torch.Generator().manual_seed(0)
    worst, sizes = 0.0, []
    for num_pictures, (rows, columns) in zip(
        (2, 1, 1), (*SMALL_GRIDS, vit.patch_embed.patches_resolution), strict=True
    ):
        shape = (num_pictures, vit.patch_embed.in_chans, rows * patch_rows, columns * patch_columns)
        pictures = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            ours = vit.forward_features(pictures)
        wanted = [ours["x_norm_clstoken"], ours["x_norm_patchtokens"]]
        worst = max(worst, _difference(session, {"pixel_values": pictures}, wanted, path=path, dtype=dtype))
        sizes.append(f"{shape[2]} x {shape[3]}")
    return f"{path.name}: onnxruntime gives our features to {worst:.1g}, at {', '.join(sizes)} pixels ({dtype})"


def check_head(path: Path, head: DINOHead, *, dtype: Dtype) -> str:
    """Compares logits of random tokens.  Raises WeightsError above `LIMITS`."""
    tokens = torch.randn(TOKENS, _width(head), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = [head(tokens)]
    worst = _difference(_session(path), {"tokens": tokens}, wanted, path=path, dtype=dtype)
    return f"{path.name}: onnxruntime gives our logits to {worst:.1g} ({dtype})"


def _width(head: DINOHead) -> int:
    return next(head.mlp.parameters()).shape[1]


def _session(path: Path) -> Any:
    check_model = library_part("onnx", "checker", "check_model", wanted_by=path.name)
    runtime = library_part("onnxruntime", wanted_by=path.name)
    with library_errors(path.name, hint="The export is not usable; nothing was written."):
        check_model(path, full_check=True)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _difference(session: Any, given: dict[str, Tensor], wanted: list[Tensor], *, path: Path, dtype: Dtype) -> float:
    with library_errors(path.name, hint="The export is not usable; nothing was written."):
        found = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    worst = max(
        float((torch.from_numpy(theirs) - ours).abs().max()) for theirs, ours in zip(found, wanted, strict=True)
    )
    limit = LIMITS[dtype] * max(1.0, *(float(ours.square().mean().sqrt()) for ours in wanted))
    if not worst <= limit:  # also where it is no number
        too_large = " Its values are too large for float16: use --dtype float32." if dtype == "float16" else ""
        raise WeightsError(
            f"{path.name}: onnxruntime's numbers differ from ours by {worst:g}, above {limit:.1g}; nothing was written."
            f"{too_large}"
        )
    return worst
