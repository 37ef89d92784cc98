"""The Encoder: films in, features out.

In: a name of weights; then PIL images, arrays, tensors, paths of pictures or of films (DICOM), or a manifest. Out: the
CLS token and the patch tokens of the last block, after the final norm; its attention.

Legend: B pictures, C channels, S side in pixels, N patches on a grid h x w, D width, H heads.
"""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dinov2.backbone_card import BackboneCard
from dinov2.encoder.attention import cls_attention
from dinov2.encoder.framing import Framing, check_size
from dinov2.encoder.preparation import Pictures, Preparation, listed
from dinov2.encoder.rows import EncodedBatch, squares_of
from dinov2.errors import ConfigError, LaunchError, PictureError
from dinov2.formats import Opened, open_vit
from dinov2.layers.attention import use_attention
from dinov2.layers.kernels import choose_attention
from dinov2.manifest import Manifest
from dinov2.manifest import read as read_manifest
from dinov2.models.processor import Three

CHANNELS = (1, 3)
PIXEL_AXES = 4


class Encoder(nn.Module):
    """A backbone with everything between a film and its features.

    Attributes:
        vit: the network; train it, read it, export it as any module. It is held once, whatever the format.
        card: what is known of the weights, or None.
        size: S, pixels of a side, that pictures are brought to unless another size is asked for.
        mean, std: of pictures in 0..1; what `preprocess` takes off and divides by.
    """

    def __init__(self, opened: Opened, *, size: int | None = None) -> None:
        """Takes the network of `opened` as it is; see `from_pretrained`, which also moves it.

        Raises:
            ConfigError: `size` is no multiple of the patch.
        """
        super().__init__()
        self.vit = opened.vit
        self.card: BackboneCard | None = opened.card
        self.mean: Three = opened.mean
        self.std: Three = opened.std
        self.size = opened.input_size if size is None else size
        self._margin = (opened.short_side or opened.input_size) / opened.input_size
        check_size(self.size, patch=self.patch_size)
        self.train(opened.vit.training)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        size: int | None = None,
        attention: str = "auto",
    ) -> Self:
        """Weights by their name, in evaluation mode.

        `name` is a folder of `dinov2 export` or `dinov2 import`, a run or a checkpoint of `dinov2 train`, a Hugging
        Face folder or hub id (with its `revision`), or a file of weights. `device` is the CPU and `dtype` float32 where
        they are not given ("bfloat16" means torch.bfloat16); `size` is that of the weights. `attention` names the
        kernel, one of `dinov2.layers.kernels.ATTENTION_NAMES`.

        Raises:
            WeightsError: there is none of that name (the message lists what can be said), or it cannot be read.
            ConfigError: a size, a format or a kernel that is not there; a kernel that does not run on this device.
            LaunchError: a device that is not there.
        """
        place = _place(device)
        kind = _format(dtype)
        choose_attention(attention, place)  # refused before anything large is read
        encoder = cls(open_vit(name, revision=revision), size=size)
        use_attention(encoder.vit, attention)
        return encoder.to(device=place, dtype=kind)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.vit.pos_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """The format of the weights, and so of the features."""
        return self.vit.pos_embed.dtype

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.vit.embed_dim

    @property
    def patch_size(self) -> int:
        """Pixels of a side of a patch."""
        return self.vit.patch_embed.patch_size[0]

    def preprocess(self, images: Pictures, *, size: int | None = None) -> Tensor:
        """Pictures of any size as pixels.  -> float32 [B, C, S, S] on the CPU; `encode` moves them

        One picture, or a list or tuple: PIL images (grey or RGB); numpy arrays [H, W], [H, W, 1] or [H, W, 3] and
        tensors, also with the channels first, uint8 or floats within 0..1; paths of PNG, JPEG and TIFF files.

        The short side becomes `size` by an antialiased bicubic filter, the middle is cropped and normalised: bit for
        bit what transformers' BitImageProcessor (PIL backend) gives; of uint8 pictures of 2**21 pixels and more, within
        one grey level, so that a film takes a fraction of the time. Where the processor of the weights cuts its square
        from a larger picture (public DINOv2: 224 of 256), the same share is cut off. Floats are not rounded to 256
        levels on the way.

        The path of a DICOM file, or of a picture of more than 8 bits, is a film: it first becomes the very picture that
        `dinov2 preprocess` makes of it, with the settings that the card records.

        Raises:
            PictureError: a picture that cannot be used; says which, and why.
            ConfigError: `size` is no multiple of the patch.
        """
        preparation = self.preparation(size)
        pictures = listed(images)
        names = (
            ["the picture"] if len(pictures) == 1 else [f"picture {i} of {len(pictures)}" for i in _from_one(pictures)]
        )
        squares = [preparation.square(picture, where=name) for picture, name in zip(pictures, names, strict=True)]
        return preparation.framing.pixels(squares)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of pixels that are prepared; gradients flow.  [B, C, rows, columns] -> CLS [B, D], patches [B, N, D]

        Rows and columns are any multiples of the patch; patches come row by row, registers are left out. The pixels
        are brought to the weights' device and format, and the features are in that format.

        Raises:
            PictureError: pixels of another shape.
        """
        features = self.vit.forward_features(self._taken(pixels))
        return features["x_norm_clstoken"], features["x_norm_patchtokens"]

    def reshape_patch_tokens(self, flat: Tensor, *, grid: tuple[int, int] | None = None) -> Tensor:
        """Patch tokens as pictures, without a copy.  [B, N, D] -> [B, D, h, w]; `grid` (h, w), a square if not given

        Raises:
            PictureError: N is not h * w, or no square.
        """
        side = round(flat.shape[1] ** 0.5)
        height, width = grid or (side, side)
        if height * width != flat.shape[1]:
            given = f"a grid of {height} x {width}" if grid else "no square"
            raise PictureError(f"{flat.shape[1]} patch tokens are {given}; give grid=(rows, columns) of patches.")
        return flat.reshape(len(flat), height, width, -1).permute(0, 3, 1, 2)

    @torch.no_grad()
    def extract_features(self, images: Pictures) -> tuple[Tensor, Tensor]:
        """Features of pictures or films, see `preprocess`.  -> CLS [B, D], patches [B, D, h, w]

        Without gradients; what comes out can be used in a training of its own, such as of a head.
        """
        return self._features(self.preprocess(images))

    def extract_cls_token(self, images: Pictures) -> Tensor:
        """One vector a picture.  -> [B, D]"""
        return self.extract_features(images)[0]

    def extract_patch_tokens(self, images: Pictures) -> Tensor:
        """One vector a patch.  -> [B, D, h, w]"""
        return self.extract_features(images)[1]

    def forward(self, images: Pictures) -> tuple[Tensor, Tensor]:
        """See `extract_features`."""
        features: tuple[Tensor, Tensor] = self.extract_features(images)
        return features

    @torch.no_grad()
    def attention_maps(self, images: Pictures) -> Tensor:
        """How much of its attention the CLS token of the last block gives to each patch.  -> [B, H, h, w]

        Shares of all tokens: what the CLS token itself and registers take is not shown, and the rest is not scaled up,
        so a map sums to less than 1.
        """
        return cls_attention(self.vit, self._taken(self.preprocess(images)))

    def over(
        self, manifest: Manifest | str | Path, *, batch_size: int = 8, workers: int = 0
    ) -> Generator[EncodedBatch, None, None]:
        """Features of every picture of a manifest, in its order.  Closing the iterator ends its workers.

        Worker processes read and prepare, this one encodes; with 0 workers it does both. A row of 16 bits is read as
        the training reads it. No more than a few batches are in memory.

        Raises:
            ManifestError: no such manifest, or a picture of it that cannot be read; names the row.
            ConfigError: a batch size below 1, or a negative number of workers.
        """
        rows = manifest if isinstance(manifest, Manifest) else read_manifest(Path(manifest))
        image_ids = rows.table.column("image_id")
        preparation = self.preparation()
        with closing(squares_of(rows, preparation=preparation, batch_size=batch_size, workers=workers)) as batches:
            for batch in batches:
                with torch.no_grad():
                    cls, patches = self._features(preparation.framing.pixels(batch.squares))
                names = tuple(str(image_ids[int(row)]) for row in batch.rows)
                yield EncodedBatch(rows=batch.rows, image_ids=names, cls=cls, patches=patches)

    def preparation(self, size: int | None = None) -> Preparation:
        """How pictures are prepared, as a value that worker processes can be given.

        Raises:
            ConfigError: `size` is no multiple of the patch, or the network takes neither one channel nor three.
        """
        channels = self.vit.patch_embed.in_chans
        if channels not in CHANNELS:
            raise ConfigError(
                f"this network takes {channels} channels, and pictures have one or three. Prepare the pixels yourself "
                "and give them to `encode`."
            )
        wanted = self.size if size is None else size
        check_size(wanted, patch=self.patch_size)
        framing = Framing(
            size=wanted,
            short_side=round(wanted * self._margin),
            channels=channels,
            patch=self.patch_size,
            mean=self.mean,
            std=self.std,
        )
        return Preparation(framing=framing, settings=self.card.preprocessing if self.card else {})

    def extra_repr(self) -> str:
        """See `torch.nn.Module.extra_repr`."""
        return f"size={self.size}, embed_dim={self.embed_dim}, patch_size={self.patch_size}"

    def _features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        cls, patches = self.encode(pixels)
        return cls, self.reshape_patch_tokens(patches)

    def _taken(self, pixels: Tensor) -> Tensor:
        channels, patch = self.vit.patch_embed.in_chans, self.patch_size
        if not isinstance(pixels, Tensor) or pixels.ndim != PIXEL_AXES or pixels.shape[1] != channels:
            shape = list(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
            raise PictureError(f"pixels of {shape}; expected a tensor [B, {channels}, rows, columns] of `preprocess`.")
        rows, columns = pixels.shape[-2:]
        if min(rows, columns) < patch or rows % patch or columns % patch:
            raise PictureError(
                f"pixels of {rows} x {columns}: each side must be a multiple of the patch of {patch}; the nearest are "
                f"{_nearest(rows, patch=patch)} rows and {_nearest(columns, patch=patch)} columns."
            )
        return pixels.to(device=self.device, dtype=self.dtype)


def _place(device: torch.device | str | None) -> torch.device:
    try:
        place = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise LaunchError(f"device={device!r}: torch knows no such device; give cpu or cuda.") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise LaunchError(f"device={str(device)!r}: torch finds {count or 'no'} GPU{'s' * (count > 1)} here; give cpu.")
    return place


def _format(dtype: torch.dtype | str | None) -> torch.dtype:
    found = torch.float32 if dtype is None else getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype={dtype!r}: give float32, bfloat16 or float16.")
    return found


def _nearest(side: int, *, patch: int) -> str:
    below = max(side // patch, 1) * patch
    return str(side) if side % patch == 0 and side else f"{below} or {below + patch}"


def _from_one(items: list[Any]) -> range:
    return range(1, len(items) + 1)
