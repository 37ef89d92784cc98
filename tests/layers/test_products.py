import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from dinov2.layers.products import Weight, goes_by_blocks, sum_of_rows

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_product_is_that_of_torch_in_every_format(dtype: torch.dtype, with_bias: bool, transposed: bool) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(24, 40, dtype=dtype).T if transposed else torch.randn(40, 24, dtype=dtype)
    bias = torch.randn(40, dtype=dtype) if with_bias else None
    weight = Weight(matrix, bias)
    for rows in (33, 1, 64):  # one weight for parts of several lengths
        x, gradient = torch.randn(rows, 24, dtype=dtype), torch.randn(rows, 40, dtype=dtype)
        assert_close(weight(x), torch.nn.functional.linear(x, matrix, bias))
        assert_close(weight.backward(gradient), gradient @ matrix)


def test_no_rows_give_no_rows() -> None:
    weight = Weight(torch.randn(6, 8), torch.randn(6))
    assert weight(torch.empty(0, 8)).shape == (0, 6)
    assert weight.backward(torch.empty(0, 6)).shape == (0, 8)
    assert (sum_of_rows(torch.empty(0, 3, dtype=torch.bfloat16)) == torch.zeros(3)).all()


def test_a_tensor_without_memory_is_multiplied_as_torch_does() -> None:
    with FakeTensorMode():
        product = Weight(torch.randn(6, 8), torch.randn(6))(torch.randn(5, 8))
    assert product.shape == (5, 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_rows_is_added_up_in_float32_or_more(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(4099, 5, dtype=torch.float64).to(dtype)
    x[:, 1] = 1  # in bfloat16 a sum of ones would stop at 256
    truth = x.double().sum(dim=0)
    found = sum_of_rows(x)
    assert found.dtype == dtype
    assert_close(found.double(), truth, rtol=torch.finfo(dtype).eps, atol=1e-3 if dtype != torch.float64 else 1e-9)


def test_only_formats_of_onednn_go_by_blocks_and_only_on_a_cpu() -> None:
    assert not goes_by_blocks(torch.device("cuda"), torch.float32)
    assert not goes_by_blocks(torch.device("cpu"), torch.float64)
    assert not goes_by_blocks(torch.device("cpu"), torch.float16)
