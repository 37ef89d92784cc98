"""A picture tower and a text tower whose embeddings are compared.

In: normalised pictures [B, 3, S, S]; texts. Out: embeddings of length 1, [B, E] and [K, E].

Legend: B pictures, K texts, E width of the common space.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from dinov2.eval.backbones.backbone import Traits

TEXTS_AT_ONCE = 256


class ImageText(nn.Module, ABC):
    """Both towers, in evaluation mode; `traits` are those of the picture tower, with `embed_dim` being E."""

    traits: Traits

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied by before a softmax over texts."""

    @abstractmethod
    def encode_images(self, pictures: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, E], each of length 1.  Raises ValueError where the tower does not take the size."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """K texts -> [K, E], each of length 1; what is beyond the tower's context is cut off."""
