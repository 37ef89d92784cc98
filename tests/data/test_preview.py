import cv2
import numpy as np
import pytest

from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.loader import batch_maker
from dinov2.data.preview import GLOBAL, LOCAL, MASK, augmentation_grid, write_picture
from dinov2.errors import DataError, Dinov2Error
from dinov2.manifest import from_folder


def grid(manifest, positions, *, num_locals: int = 8, **ibot: object) -> np.ndarray:
    maker = batch_maker(
        manifest,
        crops=Crops(global_crops_size=112, local_crops_size=56, local_crops_number=num_locals),
        augmentation=Augmentation(preset="cxr"),
        ibot=Ibot(**ibot),
        patch_size=14,
        seed=0,
    )
    return augmentation_grid(maker, positions, title="a title")


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def is_tinted(picture: np.ndarray) -> bool:
    """Whether some pixel is 30 % grey and 70 % the mask's colour, whatever the grey."""
    blue_less_green = picture[..., 0].astype(int) - picture[..., 1]
    red_less_green = picture[..., 2].astype(int) - picture[..., 1]
    tint = (abs(blue_less_green - 0.7 * (MASK[0] - MASK[1])) <= 1) & (
        abs(red_less_green - 0.7 * (MASK[2] - MASK[1])) <= 1
    )
    return int(tint.sum()) > 500


def test_the_grid_has_a_row_a_film_with_boxes_in_both_colours(manifest):
    one, three = grid(manifest, [0]), grid(manifest, [0, 1, 2])
    assert three.shape[1:] == one.shape[1:]
    assert three.shape[0] > 2.5 * one.shape[0]
    assert all(has(one, colour) for colour in (*GLOBAL, LOCAL))


def test_hidden_patches_are_tinted_and_only_where_there_are_masks(manifest):
    assert is_tinted(grid(manifest, range(2), mask_sample_probability=1.0))
    assert not is_tinted(grid(manifest, range(2), loss_weight=0.0))


@pytest.mark.parametrize("num_locals", [0, 1, 3])
def test_few_or_no_local_crops_are_drawn_too(manifest, num_locals):
    assert has(grid(manifest, [0], num_locals=num_locals), LOCAL) == (num_locals > 0)


def test_the_written_picture_is_the_grid(manifest, tmp_path):
    picture = grid(manifest, [0])
    write_picture(tmp_path / "new" / "grid.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "new" / "grid.png")), picture)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Dinov2Error, match=r"grid.png: cannot be written .*Give a .png file"):
        write_picture(tmp_path / "file" / "grid.png", np.zeros((4, 4, 3), np.uint8))


def test_a_film_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"a.png: does not decode.*Choose another --seed"):
        grid(from_folder(tmp_path), [0])
