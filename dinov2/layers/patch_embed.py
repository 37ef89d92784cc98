"""Picture to patch tokens.

In: pictures [B, C, rows, columns] in pixels. Out: tokens [B, N, D], row by row.
"""

from torch import Tensor, nn


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a size that may be given as one side."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class PatchEmbed(nn.Module):
    """One linear map of every patch, as a convolution whose stride is its kernel."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.img_size = as_pair(img_size)
        self.patch_size = as_pair(patch_size)
        self.patches_resolution = self.grid(*self.img_size)
        self.num_patches = self.patches_resolution[0] * self.patches_resolution[1]
        self.in_chans = in_chans
        self.embed_dim = embed_dim
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)

    def grid(self, rows_px: int, columns_px: int) -> tuple[int, int]:
        """Patches down and across of a picture.

        Raises:
            ValueError: a side is not a multiple of the patch.
        """
        patch_rows, patch_columns = self.patch_size
        if rows_px % patch_rows or columns_px % patch_columns or not rows_px or not columns_px:
            raise ValueError(
                f"picture of {rows_px} x {columns_px} pixels: each side must be a multiple of the patch "
                f"({patch_rows} x {patch_columns}); crop, pad or resize it."
            )
        return rows_px // patch_rows, columns_px // patch_columns

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, C, rows, columns] -> [B, N, D]

        Raises:
            ValueError: a side is not a multiple of the patch, or another number of channels.
        """
        if pictures.shape[1] != self.in_chans:
            raise ValueError(f"pictures have {pictures.shape[1]} channels; this model has in_chans={self.in_chans}")
        self.grid(pictures.shape[-2], pictures.shape[-1])
        tokens: Tensor = self.proj(pictures).flatten(2).transpose(1, 2)
        return tokens
