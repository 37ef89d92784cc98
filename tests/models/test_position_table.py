import pytest
import torch
from torch.testing import assert_close

from dinov2.models.position_table import resample_position_table, square_grid


def table(rows: int, columns: int, *, dim: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(1, 1 + rows * columns, dim) * 0.02


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_at_its_own_grid_the_table_is_returned_itself(offset: float) -> None:
    own = table(5, 3)
    assert resample_position_table(own, grid=(5, 3), target=(5, 3), offset=offset, antialias=False) is own


@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, False), (0.0, True), (0.1, True)])
@pytest.mark.parametrize("target", [(3, 3), (7, 7), (4, 9), (37, 2)])
def test_every_mode_gives_the_target_and_leaves_cls_alone(
    target: tuple[int, int], offset: float, antialias: bool
) -> None:
    own = table(5, 6)
    moved = resample_position_table(own, grid=(5, 6), target=target, offset=offset, antialias=antialias)
    assert moved.shape == (1, 1 + target[0] * target[1], 8)
    assert torch.equal(moved[:, 0], own[:, 0])


def test_the_three_modes_differ_at_a_small_target() -> None:
    own = table(16, 16)
    modes = [
        resample_position_table(own, grid=(16, 16), target=(7, 7), offset=offset, antialias=antialias)
        for offset, antialias in [(0.1, False), (0.0, False), (0.0, True)]
    ]
    assert float((modes[0] - modes[1]).abs().max()) > 0.005
    assert float((modes[1] - modes[2]).abs().max()) > 0.02


def test_rows_stay_rows_in_a_grid_that_is_not_square() -> None:
    rows = torch.arange(4.0).repeat_interleave(6)  # each position knows its row only
    own = torch.cat([torch.zeros(1), rows]).view(1, -1, 1)
    moved = resample_position_table(own, grid=(4, 6), target=(8, 3), offset=0.0, antialias=False)[0, 1:, 0].view(8, 3)
    assert_close(moved, moved[:, :1].expand(8, 3))
    assert (moved[1:, 0] > moved[:-1, 0]).all()


def test_the_resampling_is_done_in_float32_whatever_the_precision() -> None:
    own = table(8, 8).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = resample_position_table(own, grid=(8, 8), target=(3, 3), offset=0.1, antialias=False)
    exact = resample_position_table(own.float(), grid=(8, 8), target=(3, 3), offset=0.1, antialias=False)
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, exact.to(torch.bfloat16))


def test_gradients_reach_the_table() -> None:
    own = table(5, 5).requires_grad_()
    resample_position_table(own, grid=(5, 5), target=(3, 3), offset=0.1, antialias=False).sum().backward()
    assert own.grad is not None
    assert float(own.grad[:, 1:].abs().sum()) > 0


def test_a_table_of_another_grid_and_an_offset_that_moves_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="26 rows does not fit a grid of 4 x 4"):
        resample_position_table(table(5, 5), grid=(4, 4), target=(3, 3), offset=0.0, antialias=False)
    with pytest.raises(ValueError, match=r"interpolate_offset=1.5 gives \(4, 4\) patches instead of \(3, 3\)"):
        resample_position_table(table(5, 5), grid=(5, 5), target=(3, 3), offset=1.5, antialias=False)


def test_only_a_square_number_of_patches_has_a_square_grid() -> None:
    assert square_grid(1369) == (37, 37)
    assert square_grid(1370) is None
