import pytest
import torch
from torch.testing import assert_close

from dinov2.layers import PatchEmbed


def test_a_token_is_the_linear_map_of_its_patch_row_by_row() -> None:
    torch.manual_seed(0)
    embed = PatchEmbed((8, 12), 4, in_chans=2, embed_dim=5)
    pictures = torch.randn(3, 2, 8, 12)
    tokens = embed(pictures)
    assert tokens.shape == (3, 6, 5)
    patch = pictures[1, :, 4:8, 8:12]  # second row, third column
    assert_close(tokens[1, 5], embed.proj.weight.flatten(1) @ patch.flatten() + embed.proj.bias, atol=1e-5, rtol=1e-5)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"picture of 15 x 14 pixels: each side must be a multiple of the patch"):
        PatchEmbed(14, 14, embed_dim=4)(torch.zeros(1, 3, 15, 14))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures have 1 channels; this model has in_chans=3"):
        PatchEmbed(14, 14, embed_dim=4)(torch.zeros(1, 1, 14, 14))
