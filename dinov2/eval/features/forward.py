"""Pictures of a split -> tokens, batch by batch.

In: a backbone, `Examples`, a `Preparation`. Out: `FeatureBatch`es as numpy arrays, in the order of the rows.

Legend: B pictures, L blocks, P patches, D width.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones.backbone import Backbone, Tokens
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Floats
from dinov2.eval.pictures import Preparation, batches

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class FeatureBatch:
    """Tokens of B pictures: float32, and patch tokens as `patch_kind` says."""

    rows: NDArray[np.int64]  # [B]
    cls: Floats  # [B, L, D]
    pooled: Floats | None  # [B, L, D], means of the patch tokens
    patches: Floats | None  # [B, P, D] of the last block, where they were asked for


@dataclass(frozen=True, kw_only=True)
class Form:
    """Sizes of what a backbone gives for one picture."""

    blocks: int  # L
    width: int  # D
    grid: tuple[int, int] | None  # of the patches; None where there are none


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[Any]:
    """Half precision where it is asked for.  Raises ConfigError for a name that is not known."""
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: give one of {', '.join(PRECISIONS)}.")
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=HALVES[precision])


def patch_kind(precision: str) -> type[np.floating[Any]]:
    """Of stored patch tokens: float16 of a backbone in half precision, else float32."""
    return np.float32 if precision == "fp32" else np.float16


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A backbone, and how pictures are put to it."""

    backbone: Backbone  # on `device`, in evaluation mode
    preparation: Preparation
    batch_size: int
    workers: int
    device: torch.device | str
    precision: str = "fp32"

    @torch.inference_mode()
    def form(self, *, blocks: int, patches: bool) -> Form:
        """What the backbone gives for one black picture.

        Raises:
            ConfigError: it has fewer blocks, takes no pictures of this size, or has no patch tokens and `patches` is
                set.
        """
        traits, size = self.backbone.traits, self.preparation.size
        if not 1 <= blocks <= traits.depth:
            raise ConfigError(f"{blocks} blocks asked of {traits.name}, which gives 1 to {traits.depth}.")
        try:
            last = self.backbone.layers(torch.zeros(1, 3, size, size, device=self.device), blocks)[-1]
        except ValueError as error:
            raise ConfigError(f"{traits.name} does not take pictures of {size} px: {error}") from error
        if patches and last.patches is None:
            raise ConfigError(
                f"{traits.name} has no patch tokens, which this probe needs. Take a probe on the pooled output (knn, "
                "logreg, linear), or another backbone."
            )
        return Form(blocks=blocks, width=last.cls.shape[-1], grid=last.grid if last.patches is not None else None)

    def batches(
        self,
        examples: Examples,
        *,
        blocks: int,
        patches: bool,
        rows: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> Generator[FeatureBatch, None, None]:
        """Tokens of `rows` (default: all), in their order, of the last `blocks` blocks.

        Raises:
            ManifestError: a picture cannot be read, or its features are not finite; names it.
        """
        found = batches(
            examples, preparation=self.preparation, batch_size=self.batch_size, workers=self.workers, rows=rows
        )
        with closing(found) as pictures:
            for batch in pictures:
                with torch.inference_mode(), autocast(self.device, self.precision):
                    layers = self.backbone.layers(batch.normalised(self.device), blocks)
                yield _checked(
                    FeatureBatch(
                        rows=batch.rows,
                        cls=_numbers(torch.stack([tokens.cls.float() for tokens in layers], dim=1)),
                        pooled=_pooled(layers),
                        patches=_patches(layers[-1], kind=patch_kind(self.precision)) if patches else None,
                    ),
                    examples=examples,
                    precision=self.precision,
                )


def _pooled(layers: Sequence[Tokens]) -> Floats | None:
    means = [tokens.patches.float().mean(dim=1) for tokens in layers if tokens.patches is not None]
    return _numbers(torch.stack(means, dim=1)) if len(means) == len(layers) else None


def _patches(tokens: Tokens, *, kind: type[np.floating[Any]]) -> Floats | None:
    return None if tokens.patches is None else _numbers(tokens.patches.float()).astype(kind, copy=False)


def _numbers(tensor: Tensor) -> Floats:
    numbers: Floats = tensor.cpu().numpy()
    return numbers


def _checked(batch: FeatureBatch, *, examples: Examples, precision: str) -> FeatureBatch:
    fine = np.ones(len(batch.rows), dtype=bool)
    for array in (batch.cls, batch.pooled, batch.patches):
        if array is not None:
            fine &= np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not fine.all():
        row = int(batch.rows[int(np.argmin(fine))])
        also = f" (and {(~fine).sum() - 1} more of its batch)" if (~fine).sum() > 1 else ""
        advice = "Look at the picture" if precision == "fp32" else "Use --precision fp32, or look at the picture"
        raise ManifestError(
            f"{examples.name}, row {row}: features of {examples.manifest.path(row)}{also} are not finite in "
            f"{precision}. {advice}; a backbone that does so on every picture is broken."
        )
    return batch
