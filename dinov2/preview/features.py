"""What a backbone says of some films, patch by patch.

In: a `Backbone` and rows of a manifest. Out: `FeatureMaps`: the squares it was given, its patch tokens, and, where it
is a network of this package, where its CLS token looks.

Legend: F films, S side in pixels, h x w = N patches, D width, H heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinov2.data.dataset import Pictures, Unreadable
from dinov2.encoder.attention import cls_attention
from dinov2.errors import ConfigError, ManifestError, WeightsError
from dinov2.eval.backbones import Backbone, DinoBackbone
from dinov2.eval.pictures import Preparation
from dinov2.manifest import Manifest

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Squares and tokens of F films."""

    names: tuple[str, ...]  # image ids
    squares: NDArray[np.uint8]  # [F, S, S]
    grid: tuple[int, int]  # h, w
    tokens: Floats  # [F, N, D], last block, after its norm
    attention: Floats | None  # [F, H, N]: shares of all tokens that the CLS token of the last block gives to patches

    def __len__(self) -> int:
        return len(self.names)


def choose_rows(manifest: Manifest, *, films: int, seed: int, image_ids: Sequence[str] = ()) -> list[int]:
    """Rows to look at: those of `image_ids`, else `films` of them drawn by lot, in their order.

    Raises ManifestError for an id that is not there.
    """
    if not image_ids:
        chosen = np.random.default_rng(seed).choice(len(manifest), size=min(films, len(manifest)), replace=False)
        return sorted(int(row) for row in chosen)
    known = {str(name): row for row, name in enumerate(manifest.table.column("image_id").to_pylist())}
    missing = [name for name in image_ids if name not in known]
    if missing:
        raise ManifestError(
            f"--image-ids {missing[0]}: no picture of this name among {len(manifest):,}, such as {next(iter(known))}. "
            "dinov2 manifest show lists them."
        )
    return [known[name] for name in dict.fromkeys(image_ids)]


@torch.inference_mode()
def feature_maps(
    backbone: Backbone,
    manifest: Manifest,
    rows: Sequence[int],
    *,
    preparation: Preparation,
    device: torch.device | str,
    advance: Callable[[], None] = lambda: None,
) -> FeatureMaps:
    """Film by film, so that memory holds one.  `advance` hears of each.

    Raises:
        ConfigError: a backbone without patch tokens, or one that does not take this size.
        ManifestError: a picture that cannot be read; names it.
        WeightsError: features that are no finite numbers.
    """
    name = backbone.traits.name
    pictures = Pictures(manifest)
    squares, tokens, attention = [], [], []
    grid: tuple[int, int] | None = None
    for row in rows:
        square = _square(pictures, row, preparation=preparation)
        pixels = _normalised(square, preparation=preparation).to(device)
        try:
            said = backbone(pixels)
        except ValueError as error:
            raise ConfigError(f"{name} does not take pictures of {preparation.size} px: {error}") from error
        if said.patches is None or said.grid is None:
            raise ConfigError(
                f"{name} has no patch tokens to show. Give a vision transformer, or a run of dinov2 train."
            )
        if not bool(torch.isfinite(said.patches).all()):
            raise WeightsError(
                f"{name}: patch tokens of {pictures.path(row)} are not finite. If all films do so, the weights are "
                "broken: take an earlier checkpoint."
            )
        grid = said.grid
        squares.append(square)
        tokens.append(_numbers(said.patches[0]))
        if isinstance(backbone, DinoBackbone):
            one = pixels.mean(dim=1, keepdim=True) if backbone.vit.patch_embed.in_chans == 1 else pixels
            attention.append(_numbers(cls_attention(backbone.vit, one)[0].flatten(1)))
        advance()
    assert grid is not None
    ids = manifest.table.column("image_id")
    return FeatureMaps(
        names=tuple(str(ids[row]) for row in rows),
        squares=np.stack(squares),
        grid=grid,
        tokens=np.stack(tokens),
        attention=np.stack(attention) if attention else None,
    )


def _square(pictures: Pictures, row: int, *, preparation: Preparation) -> NDArray[np.uint8]:
    try:
        square: NDArray[np.uint8] = preparation.picture(pictures.read(row)).astype(np.uint8, copy=False)
    except Unreadable as reason:
        raise ManifestError(f"{pictures.path(row)}: {reason}. Mend the file, or choose others with --seed.") from reason
    return square


def _normalised(square: NDArray[np.uint8], *, preparation: Preparation) -> Tensor:
    """-> float32 [1, 3, S, S]"""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preparation.mean, preparation.std))
    return (torch.from_numpy(square).float()[None, None] / 255 - mean) / std


def _numbers(tensor: Tensor) -> Floats:
    numbers: Floats = tensor.float().cpu().numpy()
    return numbers
