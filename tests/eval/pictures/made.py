"""Pictures in memory as examples; small networks as backbones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinov2.errors import ManifestError
from dinov2.eval.backbones import DinoBackbone
from dinov2.eval.backbones.ours import dino_traits
from dinov2.eval.examples import Examples, Mask, Picture, Task
from dinov2.manifest import from_rows
from dinov2.models.vision_transformer import DinoVisionTransformer


class Arrays:
    """A reader of pictures that are there."""

    def __init__(self, pictures: Sequence[Picture], masks: Sequence[Mask] = (), unreadable: Sequence[int] = ()) -> None:
        self.pictures, self.masks, self.unreadable = list(pictures), list(masks), set(unreadable)

    def picture(self, row: int) -> Picture:
        if row in self.unreadable:
            raise ManifestError(f"row {row}: film{row}.png: does not decode.")
        return self.pictures[row]

    def mask(self, row: int) -> Mask:
        return self.masks[row]


def examples_of(
    pictures: Sequence[Picture],
    *,
    labels: Any = None,
    classes: Sequence[str] = ("finding",),
    task: Task = "multilabel",
    name: str = "films",
    patients: Sequence[str] | None = None,
    volumes: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    masks: Sequence[Mask] = (),
    unreadable: Sequence[int] = (),
    root: Path = Path("/films"),
) -> Examples:
    """A split of pictures in memory; without labels, none is stated."""
    count = len(pictures)
    rows = [
        {"image": f"{name}{row}.png", "image_id": f"{name}-{row}", "dataset": "made", "sha256": f"{name}{row:04d}"}
        | {column: values[row] for column, values in (columns or {}).items()}
        for row in range(count)
    ]
    stated = np.full((count, len(classes)), np.nan) if labels is None else labels
    return Examples(
        name=name,
        manifest=from_rows(rows, root=root),
        reader=Arrays(pictures, masks, unreadable),
        task=task,
        classes=tuple(classes),
        labels=np.asarray(stated, dtype=np.float32),
        patients=np.asarray(patients or [f"{name}-patient-{row}" for row in range(count)], dtype=np.str_),
        volumes=None if volumes is None else np.asarray(volumes, dtype=np.str_),
    )


def noise(count: int, *, size: int = 28, seed: int = 0) -> list[Picture]:
    """Grey pictures of noise, each with another mean."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size, size), dtype=np.uint8) // (1 + row % 3) for row in range(count)]


def small_backbone(*, seed: int = 0, depth: int = 3) -> DinoBackbone:
    """A vision transformer of width 16 for pictures of 28 px in patches of 14."""
    torch.manual_seed(seed)
    vit = DinoVisionTransformer(img_size=28, patch_size=14, embed_dim=16, depth=depth, num_heads=2)
    for parameter in vit.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return DinoBackbone(vit, traits=dino_traits(vit, name=f"small-{seed}"))
