import pytest
import torch

from dinov2.train.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_named_precision_is_what_matrix_products_run_in(name: str, dtype: torch.dtype) -> None:
    precision = choose_precision(name, device=CPU)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert precision.needs_scaler == (name == "fp16")


def test_auto_takes_what_the_processor_multiplies_natively_and_says_why() -> None:
    precision = choose_precision("auto", device=CPU)
    features = torch.cpu.get_capabilities()
    native = features.get("amx_bf16") or features.get("avx512_bf16")
    assert precision.name == ("bf16" if native else "fp32")
    assert precision.reason.startswith("auto: this CPU has")
