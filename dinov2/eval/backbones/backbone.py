"""What a probe knows of a backbone: one interface for every architecture and source.

In: pictures [B, 3, H, W], normalised by the backbone's own mean and standard deviation. Out: `Tokens`.

Legend: B pictures, D width, N patches on a grid h x w.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Tokens:
    """What one block says of B pictures."""

    cls: Tensor  # [B, D]; of a network without a CLS token its pooled output
    patches: Tensor | None  # [B, N, D], row by row; None where the network has none
    grid: tuple[int, int] | None  # (h, w)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What is fixed about a backbone."""

    name: str  # as the user gave it
    family: str  # dinov2, vit, mae, msn, clip, sam, dinov3, resnet ...
    embed_dim: int  # D
    depth: int  # blocks that `layers` can return; 1 where only the output is known
    patch_size: int | None  # pixels; None: no patch tokens
    mean: tuple[float, float, float]  # of pictures in 0..1
    std: tuple[float, float, float]
    input_size: int  # pixels, that it was trained at or is usually given
    size_step: int  # a side must be a multiple of this
    fixed_size: bool  # whether `input_size` is the only one
    fingerprint: str  # of the weights: equal weights, equal text


class Backbone(nn.Module, ABC):
    """A network in evaluation mode."""

    traits: Traits

    @abstractmethod
    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """Tokens after each of the last `n` blocks, last block last, each through the final norm.

        Raises:
            ValueError: n above `traits.depth`, or a side that the network does not take.
        """

    def forward(self, pictures: Tensor) -> Tokens:
        """Tokens of the last block."""
        return self.layers(pictures, 1)[-1]

    @abstractmethod
    def parts(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Parameters from the input to the output: embeddings, every block, final norm. For layer-wise learning rates.

        Raises:
            ValueError: the architecture has no such order.
        """

    def extra_repr(self) -> str:
        return f"{self.traits.name}: {self.traits.family}, width {self.traits.embed_dim}"

    def __call__(self, *args: Any, **kwargs: Any) -> Tokens:
        tokens: Tokens = super().__call__(*args, **kwargs)
        return tokens
