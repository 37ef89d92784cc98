"""Where a decoder's inputs come from: patch tokens kept since the first pass, or computed from the pictures each time.

In: a backbone and a split with masks. Out: batches of tokens of some blocks and of masks.

Legend: N pictures, B of a batch, L blocks, D width, h x w patches, S side of a prepared picture.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones import Backbone
from dinov2.eval.examples import Examples
from dinov2.eval.features import autocast, join_examples
from dinov2.eval.pictures import Augment, Preparation, batches

Keep = Literal["auto", "ram", "disk", "none"]
Where = Literal["ram", "disk", "none"]
KEEPS: tuple[Keep, ...] = ("auto", "ram", "disk", "none")
GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """What decoders are given for B pictures."""

    tokens: list[Tensor]  # of each block [B, D, h, w], input side first, on the device
    masks: Tensor  # [B, S, S] uint8, on the device


@dataclass(frozen=True, kw_only=True)
class KeptTokens:
    """Tokens of a split, in memory or in a file, and its masks, in memory."""

    tokens: NDArray[np.floating[Any]]  # [N, L, h * w, D]
    masks: NDArray[np.uint8]  # [N, S, S]


@dataclass(frozen=True, kw_only=True)
class TokenSplit:
    """A split for a decoder; `kept` has as many rows as the examples, part after part, or is empty."""

    examples: Examples
    kept: tuple[KeptTokens, ...] = ()
    distances: bool = False  # whether surface distances of its predictions are computed, which takes its time

    def joined(self, other: "TokenSplit") -> "TokenSplit":
        """These pictures, then the other's."""
        kept = self.kept + other.kept if self.kept and other.kept else ()
        return TokenSplit(examples=join_examples(self.examples, other.examples), kept=kept)


@dataclass(frozen=True, kw_only=True)
class TokenReader:
    """How tokens are computed: of which blocks, from pictures prepared how."""

    backbone: Backbone  # on the device
    blocks: tuple[int, ...]  # counted from 0
    preparation: Preparation
    batch_size: int
    workers: int
    precision: str
    device: torch.device

    def check(self) -> None:
        """Raises ConfigError for a backbone without patch tokens, or one that does not take this size."""
        _ = self.grid

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(h, w).  Raises ConfigError for a backbone without patch tokens, or one that does not take this size."""
        size, traits = self.preparation.size, self.backbone.traits
        with torch.no_grad():
            try:
                found = self.backbone(torch.zeros(1, 3, size, size, device=self.device))
            except ValueError as error:
                raise ConfigError(f"{traits.name} does not take pictures of {size} px: {error}") from error
        if found.patches is None or found.grid is None:
            raise ConfigError(
                f"{traits.name} has no patch tokens, and a mask cannot be read from a single vector. Take a vision "
                "transformer, or a probe of the whole picture (knn, logreg, linear)."
            )
        return found.grid

    def num_bytes(self, num_pictures: int) -> int:
        """What keeping the tokens of so many pictures takes."""
        height, width = self.grid
        per_picture = len(self.blocks) * height * width * self.backbone.traits.embed_dim
        return num_pictures * per_picture * self.kind().itemsize

    def kind(self) -> np.dtype[Any]:
        """Of kept tokens: float16 where the backbone computes in half precision."""
        return np.dtype(np.float32 if self.precision == "fp32" else np.float16)

    def tokens_of(self, pictures: Tensor) -> list[Tensor]:
        """[B, 3, S, S] -> of each block [B, D, h, w]; with gradients where the backbone has them."""
        first = min(self.blocks)
        depth = self.backbone.traits.depth
        with autocast(self.device, self.precision):
            layers = self.backbone.layers(pictures, depth - first)
        found = []
        for block in self.blocks:
            layer = layers[block - first]
            assert layer.patches is not None
            found.append(_as_maps(layer.patches.float(), grid=self.grid))
        return found

    def live(
        self,
        examples: Examples,
        *,
        order: Sequence[int] | NDArray[np.int64] | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        gradients: bool = False,
        masks: bool = True,
    ) -> Generator[tuple[NDArray[np.int64], TokenBatch], None, None]:
        """Rows and their tokens, computed now.  Raises ManifestError for a picture whose tokens are not finite."""
        found = batches(
            examples,
            preparation=self.preparation,
            batch_size=self.batch_size,
            workers=self.workers,
            rows=order,
            masks=masks,
            augment=augment,
            seed=seed,
        )
        with closing(found):
            for batch in found:
                with nullcontext() if gradients else torch.no_grad():
                    tokens = self.tokens_of(batch.normalised(self.device))
                if not gradients and not all(bool(block.isfinite().all()) for block in tokens):
                    named = ", ".join(str(examples.manifest.path(int(row))) for row in batch.rows[:3])
                    raise ManifestError(
                        f"{examples.name}: patch tokens of {named} ... are not finite in {self.precision}. Use "
                        "--precision fp32, or look at the pictures."
                    )
                side = self.preparation.size
                given = batch.masks if batch.masks is not None else torch.zeros(len(batch), side, side).byte()
                yield batch.rows, TokenBatch(tokens=tokens, masks=given.to(self.device))

    def kept(
        self,
        examples: Examples,
        *,
        file: Path | None,
        distances: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> TokenSplit:
        """The split with its tokens computed once: in memory, or in a file that is written anew."""
        height, width = self.grid
        shape = (len(examples), len(self.blocks), height * width, self.backbone.traits.embed_dim)
        if file is None:
            tokens: NDArray[Any] = np.empty(shape, dtype=self.kind())
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            tokens = open_memmap(file, mode="w+", dtype=self.kind(), shape=shape)
        side = self.preparation.size
        masks = np.empty((len(examples), side, side), dtype=np.uint8)
        for rows, batch in self.live(examples):
            stacked = torch.stack([block.flatten(2).transpose(1, 2) for block in batch.tokens], dim=1)
            tokens[rows] = stacked.cpu().numpy().astype(self.kind(), copy=False)
            masks[rows] = batch.masks.cpu().numpy()
            if advance is not None:
                advance(len(rows))
        return TokenSplit(examples=examples, kept=(KeptTokens(tokens=tokens, masks=masks),), distances=distances)

    def from_kept(
        self, split: TokenSplit, *, order: Sequence[int] | NDArray[np.int64] | None = None
    ) -> Generator[tuple[NDArray[np.int64], TokenBatch], None, None]:
        """Rows and their tokens, as they were kept."""
        starts = np.cumsum([0, *(len(part.masks) for part in split.kept)])
        wanted = np.arange(len(split.examples)) if order is None else np.asarray(order, dtype=np.int64)
        for first in range(0, len(wanted), self.batch_size):
            rows = wanted[first : first + self.batch_size]
            places = np.searchsorted(starts, rows, side="right") - 1
            tokens = np.stack([split.kept[p].tokens[row - starts[p]] for p, row in zip(places, rows, strict=True)])
            masks = np.stack([split.kept[p].masks[row - starts[p]] for p, row in zip(places, rows, strict=True)])
            moved = torch.from_numpy(tokens).to(self.device).float()  # [B, L, h * w, D]
            blocks = [_as_maps(block, grid=self.grid) for block in moved.unbind(dim=1)]
            yield rows, TokenBatch(tokens=blocks, masks=torch.from_numpy(masks).to(self.device))


def keep_where(keep: Keep, *, num_bytes: int, limit_gb: float) -> Where:
    """Where tokens are kept: "auto" is memory up to the limit, and beyond it they are computed in every epoch."""
    if keep != "auto":
        return keep
    return "ram" if num_bytes <= limit_gb * GIGABYTE else "none"


def _as_maps(patches: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """[B, h * w, D] -> [B, D, h, w]"""
    return patches.transpose(1, 2).reshape(len(patches), patches.shape[2], *grid)
