"""Small pictures with known labels and masks, and small backbones, for probes that train networks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2.eval.backbones.ours import DinoBackbone, dino_traits
from dinov2.eval.examples import EvalData, Examples, Mask, Picture
from dinov2.eval.pictures import Preparation
from dinov2.manifest import from_rows
from dinov2.models.vision_transformer import DinoVisionTransformer

SIZE, PATCH = 32, 8
PREPARATION = Preparation(size=SIZE, fit="letterbox", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@dataclass(frozen=True)
class Reader:
    """Pictures and masks in memory."""

    pictures: NDArray[np.uint8]  # [N, H, W]
    masks: NDArray[np.uint8]  # [N, H, W]

    def picture(self, row: int) -> Picture:
        return self.pictures[row]

    def mask(self, row: int) -> Mask:
        return self.masks[row]


def tiny_backbone(*, seed: int = 0, ffn: str = "mlp", layerscale: float | None = 0.5, depth: int = 3) -> DinoBackbone:
    """A vision transformer of width 32 whose LayerScale is no identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vit = DinoVisionTransformer(
            SIZE, PATCH, embed_dim=32, depth=depth, num_heads=2, init_values=layerscale, ffn_layer=ffn
        )
    return DinoBackbone(vit, traits=dino_traits(vit, name="tiny"))


def striped(num: int, *, name: str, seed: int) -> Examples:
    """Class 0 has stripes, class 1 is bright; both on their own, over noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num, 2)) < 0.5).astype(np.float32)
    pictures = rng.normal(90, 12, (num, SIZE, SIZE))
    pictures += labels[:, 0, None, None] * 45 * np.where(np.arange(SIZE) % 4 < 2, 1, -1)
    pictures += labels[:, 1, None, None] * 60
    return _examples(name, pictures, np.zeros_like(pictures), labels=labels)


def discs(num: int, *, name: str, seed: int, height: int = 48, width: int = 40) -> Examples:
    """A bright disc (class 1) and a dark one (class 2) on grey; masks of the same size."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    pictures, masks = rng.normal(120, 6, (num, height, width)), np.zeros((num, height, width))
    for i in range(num):
        for number, (side, grey) in enumerate(((0.3, 80), (0.7, -80)), start=1):
            centre = rng.uniform(0.35, 0.65) * height, side * width
            inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (rng.uniform(0.12, 0.18) * height) ** 2
            pictures[i][inside] += grey
            masks[i][inside] = number
    return _examples(name, pictures, masks, labels=np.zeros((num, 0), dtype=np.float32))


def _examples(
    name: str, pictures: NDArray[np.float64], masks: NDArray[np.float64], *, labels: NDArray[np.float32]
) -> Examples:
    ids = [f"{name}{i}" for i in range(len(pictures))]
    rows = [{"image": f"{one}.png", "image_id": one, "patient": f"patient of {one}"} for one in ids]
    is_masks = labels.shape[1] == 0
    return Examples(
        name=name,
        manifest=from_rows(rows, root=Path("/nowhere")),
        reader=Reader(pictures.clip(0, 255).astype(np.uint8), masks.astype(np.uint8)),
        task="segmentation" if is_masks else "multilabel",
        classes=("bright", "dark") if is_masks else ("stripes", "bright"),
        labels=labels,
        patients=np.asarray([f"patient of {one}" for one in ids]),
    )


def striped_data(num: int = 48) -> EvalData:
    return EvalData(
        train=striped(num, name="train", seed=1),
        val=striped(24, name="val", seed=2),
        test=striped(24, name="test", seed=3),
    )


def disc_data(num: int = 24) -> EvalData:
    return EvalData(
        train=discs(num, name="train", seed=1), val=discs(8, name="val", seed=2), test=discs(8, name="test", seed=3)
    )
