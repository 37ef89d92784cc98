"""The tokens that the losses read: a backbone is asked for these alone, and its last block computes no others.

In: a backbone, crops of one or several sizes, where patches are masked. Out: CLS tokens and masked patches, normed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.models.vision_transformer import DinoVisionTransformer


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a loss or a head starts from."""

    cls: tuple[Tensor, ...]  # of every size of crops, [crops, D]; empty where nobody asked for them
    patches: Tensor | None  # [M, D], crop by crop


def read_tokens(
    backbone: DinoVisionTransformer,
    crops: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    *,
    with_cls: bool = True,
    patches: Tensor | None = None,
) -> Tokens:
    """CLS tokens of all crops and some patches of those of the first size, int64 [M] among its crops x N."""
    places = []
    start, lengths = 0, [backbone.num_tokens_of(pictures) for pictures in crops]
    for pictures, length in zip(crops, lengths, strict=True):
        if with_cls:
            end = start + len(pictures) * length
            places.append(torch.arange(start, end, length, device=pictures.device))
            start = end
    if patches is not None:
        num_patches = lengths[0] - backbone.first_patch
        crop, patch = patches // num_patches, patches % num_patches
        places.append(crop * lengths[0] + backbone.first_patch + patch)
    found = backbone(crops, masks, only=torch.cat(places)).split([len(some) for some in places])  # [R, D]
    return Tokens(
        cls=found[: len(crops)] if with_cls else (),
        patches=None if patches is None else found[-1],
    )
