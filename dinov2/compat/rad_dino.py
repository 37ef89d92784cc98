"""The class of the `rad_dino` package under its names, given any backbone.

In: a folder or hub id of weights; PIL images and everything else that `dinov2.Encoder` takes. Out: CLS and patch tokens
in the shapes of that package.

    from dinov2.compat.rad_dino import RadDino

What is not here: `.model` and `.processor`, which there are objects of transformers (here: `.encoder`), and
`download_sample_image`, because nothing in this package fetches pictures. What is more: a path, a revision, a device, a
format, other sizes. Of a backbone with registers the patch tokens are those of patches alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dinov2.encoder import Encoder
from dinov2.encoder.preparation import Pictures
from dinov2.errors import PictureError, WeightsError

REPO = "microsoft/rad-dino"
PIXELS = "pixel_values"


class Inputs(dict[str, Tensor]):
    """What `preprocess` gives: `pixel_values` [B, C, S, S] by key or as an attribute; `**inputs` works too."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"Inputs hold {', '.join(self)}, and no {name!r}") from error

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Every tensor moved, as by `torch.Tensor.to`; these very inputs."""
        for name in self:
            self[name] = self[name].to(*args, **kwargs)
        return self


class RadDino(nn.Module):
    """A drop-in for `rad_dino.RadDino`."""

    def __init__(
        self,
        name: str | Path = REPO,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        size: int | None = None,
    ) -> None:
        """Without a name: the published RAD-DINO, from the hub or its cache; see `Encoder.from_pretrained`.

        Raises:
            WeightsError: there is none of that name, or it cannot be read.
            ConfigError: a size or a format that is not there.
            LaunchError: a device that is not there.
        """
        super().__init__()
        self.encoder = Encoder.from_pretrained(name, revision=revision, device=device, dtype=dtype, size=size)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.encoder.device

    def preprocess(self, image_or_images: Pictures) -> Inputs:
        """One picture or several, see `Encoder.preprocess`.  -> `pixel_values` float32 [B, C, S, S] on the CPU

        Raises PictureError for one that cannot be used.
        """
        return Inputs({PIXELS: self.encoder.preprocess(image_or_images)})

    def encode(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Of what `preprocess` gave, or transformers' processor; gradients flow.  -> CLS [B, D], patches [B, N, D]

        Raises PictureError where the inputs hold no pixels, or pixels of another shape.
        """
        if PIXELS not in inputs:
            raise PictureError(f"inputs of {', '.join(map(str, inputs)) or 'nothing'}; expected {PIXELS!r}.")
        return self.encoder.encode(inputs[PIXELS])

    def reshape_patch_tokens(self, patch_tokens_flat: Tensor) -> Tensor:
        """Patch tokens of a square picture.  [B, N, D] -> [B, D, h, w]   Raises PictureError for another shape."""
        return self.encoder.reshape_patch_tokens(patch_tokens_flat)

    def extract_features(self, image_or_images: Pictures) -> tuple[Tensor, Tensor]:
        """-> CLS [B, D], patches [B, D, h, w], without gradients"""
        features: tuple[Tensor, Tensor] = self.encoder.extract_features(image_or_images)
        return features

    def extract_cls_token(self, image_or_images: Pictures) -> Tensor:
        """-> [B, D]"""
        return self.encoder.extract_cls_token(image_or_images)

    def extract_patch_tokens(self, image_or_images: Pictures) -> Tensor:
        """-> [B, D, h, w]"""
        return self.encoder.extract_patch_tokens(image_or_images)

    def forward(self, image_or_images: Pictures) -> tuple[Tensor, Tensor]:
        """See `extract_features`."""
        return self.extract_features(image_or_images)


def safetensors_to_state_dict(checkpoint_path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by its name, such as RAD-DINO's `backbone_compatible.safetensors`.

    Raises WeightsError where the file is absent, cut short or of another kind.
    """
    path = Path(checkpoint_path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}). Download or write it again.") from error
