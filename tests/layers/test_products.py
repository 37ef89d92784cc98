import pytest
import torch
from torch.testing import assert_close

from dinov2.layers.products import product


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_product_is_that_of_torch_in_every_format(dtype: torch.dtype, with_bias: bool, transposed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(33, 24, dtype=dtype)
    weight = torch.randn(24, 40, dtype=dtype).T if transposed else torch.randn(40, 24, dtype=dtype)
    bias = torch.randn(40, dtype=dtype) if with_bias else None
    expected = torch.nn.functional.linear(x, weight, bias)
    assert_close(product(x, weight, bias), expected)


def test_a_product_lands_where_it_is_told_to_and_nowhere_else() -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    whole = torch.full((9, 6), 7.0)
    returned = product(x, weight, out=whole[3:7])
    assert_close(whole[3:7], x @ weight.T)
    assert returned.data_ptr() == whole[3:7].data_ptr()
    assert (whole[:3] == 7).all()
    assert (whole[7:] == 7).all()


def test_no_rows_give_no_rows() -> None:
    assert product(torch.empty(0, 8), torch.randn(6, 8), torch.randn(6)).shape == (0, 6)
