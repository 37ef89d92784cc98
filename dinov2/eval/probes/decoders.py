"""From patch tokens to a class per pixel.

In: tokens of some blocks, each [B, D, h, w], input side first. Out: logits [B, K, h', w'], a multiple of h;
whoever calls brings them to the size of the mask.

The last layer of every decoder is a plain convolution, so logits take either sign. Norms are group norms: they do the
same in training and afterwards, whatever the batch, so a batch of one picture is no special case.

Legend: B pictures, D width, h x w patches, K classes with background.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

DecoderName = Literal["linear", "unet", "upernet"]
DECODERS: tuple[DecoderName, ...] = ("linear", "unet", "upernet")
NUM_GROUPS = 8
UNET_BLOCKS, UPERNET_BLOCKS = 4, 4
POOLED_SIDES = (1, 2, 3, 6)


def blocks_of(name: DecoderName, *, depth: int) -> tuple[int, ...]:
    """Which blocks a decoder sees, counted from 0: linear the last; unet the last four; upernet four over the depth."""
    if name == "linear":
        return (depth - 1,)
    if name == "unet":
        return tuple(range(max(0, depth - UNET_BLOCKS), depth))
    count = min(UPERNET_BLOCKS, depth)
    return tuple(depth * (i + 1) // count - 1 for i in range(count))


def build_decoder(name: DecoderName, *, embed_dim: int, num_blocks: int, num_classes: int, width: int) -> nn.Module:
    """A decoder with fresh weights; `num_classes` counts background, `width` the channels inside (not of "linear")."""
    if name == "linear":
        return LinearDecoder(embed_dim, num_classes=num_classes)
    if name == "unet":
        return UNetDecoder(embed_dim, num_blocks=num_blocks, num_classes=num_classes, width=width)
    return UPerDecoder(embed_dim, num_blocks=num_blocks, num_classes=num_classes, width=width)


class LinearDecoder(nn.Module):
    """A linear map of each patch token of the last block (a 1 x 1 convolution)."""

    def __init__(self, embed_dim: int, *, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(embed_dim, num_classes, kernel_size=1)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """-> [B, K, h, w]"""
        logits: Tensor = self.logits(tokens[-1])
        return logits


class UNetDecoder(nn.Module):
    """Transposed convolutions from the last block up, each step joined by the tokens of an earlier block as a skip.

    With L blocks the result is 2^L times finer than the patches, at most 16 times. Tokens of a plain transformer lie
    all on one grid, so a skip is brought to the size of its step by bilinear interpolation. (U-Net: arXiv 1505.04597;
    on the tokens of a ViT: arXiv 2103.10504.)
    """

    def __init__(self, embed_dim: int, *, num_blocks: int, num_classes: int, width: int) -> None:
        super().__init__()
        widths = [max(width >> i, NUM_GROUPS) for i in range(num_blocks + 1)]
        # on the patch grid, where it costs little, so that a place is judged by what lies around it
        self.entry = nn.Sequential(
            _conv(embed_dim, widths[0], kernel_size=1),
            _conv(widths[0], widths[0], kernel_size=3),
            _conv(widths[0], widths[0], kernel_size=3),
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, kernel_size=2, stride=2) for before, after in pairwise(widths)
        )
        # the last block is the entry; steps without an earlier block go up alone
        self.skips = nn.ModuleList(_conv(embed_dim, after, kernel_size=1) for after in widths[1:num_blocks])
        self.joints = nn.ModuleList(
            _conv(after * (2 if i < len(self.skips) else 1), after, kernel_size=3) for i, after in enumerate(widths[1:])
        )
        self.logits = nn.Conv2d(widths[-1], num_classes, kernel_size=1)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """-> [B, K, 2^L h, 2^L w]"""
        x = self.entry(tokens[-1])
        for i, (up, joint) in enumerate(zip(self.ups, self.joints, strict=True)):
            x = up(x)
            if i < len(self.skips):
                skip = self.skips[i](tokens[-2 - i])
                x = torch.cat([x, _resized(skip, like=x)], dim=1)
            x = joint(x)
        logits: Tensor = self.logits(x)
        return logits


class UPerDecoder(nn.Module):
    """Pyramid pooling of the last block, lateral maps of the others added from the top down, all fused.

    Blocks go in at 4, 2, 1 and 1/2 times the patch grid, first block finest, as a plain transformer is commonly given
    to this decoder. (UPerNet: arXiv 1807.10221; the scales as in BEiT, arXiv 2106.08254.)
    """

    def __init__(self, embed_dim: int, *, num_blocks: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.scales = (4.0, 2.0, 1.0, 0.5)[-num_blocks:] if num_blocks > 1 else (1.0,)
        self.laterals = nn.ModuleList(_conv(embed_dim, width, kernel_size=1) for _ in range(num_blocks - 1))
        self.pooled = nn.ModuleList(_conv(embed_dim, width, kernel_size=1) for _ in POOLED_SIDES)
        self.top = _conv(embed_dim + len(POOLED_SIDES) * width, width, kernel_size=3)
        self.smooth = nn.ModuleList(_conv(width, width, kernel_size=3) for _ in range(num_blocks - 1))
        self.fuse = _conv(num_blocks * width, width, kernel_size=3)
        self.logits = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """-> [B, K, 4 h, 4 w], of fewer than four blocks less fine"""
        levels = [_scaled(block, scale) for block, scale in zip(tokens, self.scales, strict=True)]
        last = levels[-1]
        pooled = [
            _resized(conv(nn.functional.adaptive_avg_pool2d(last, side)), like=last)
            for conv, side in zip(self.pooled, POOLED_SIDES, strict=True)
        ]
        maps = [lateral(level) for lateral, level in zip(self.laterals, levels[:-1], strict=True)]
        maps.append(self.top(torch.cat([last, *pooled], dim=1)))
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + _resized(maps[i + 1], like=maps[i])
        maps[:-1] = [conv(level) for conv, level in zip(self.smooth, maps[:-1], strict=True)]
        fused = self.fuse(torch.cat([_resized(level, like=maps[0]) for level in maps], dim=1))
        logits: Tensor = self.logits(fused)
        return logits


def _conv(num_in: int, num_out: int, *, kernel_size: int) -> nn.Sequential:
    groups = NUM_GROUPS if num_out % NUM_GROUPS == 0 else 1
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size, padding=kernel_size // 2, bias=False),
        nn.GroupNorm(groups, num_out),
        nn.ReLU(),
    )


def _resized(x: Tensor, *, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _scaled(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    size = [max(1, round(side * scale)) for side in x.shape[-2:]]
    return interpolate(x, size=size, mode="bilinear", align_corners=False)
