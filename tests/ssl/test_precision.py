import pytest
import torch

from dinov2.config.load import load_config
from dinov2.config.schema import ComputePrecision
from dinov2.ssl.precision import Precision, choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PARTS = ("backbone", "dino_head")
BACKBONE = "compute_precision.student.backbone.mixed_precision"


def chosen(name: str, *words: str, device: torch.device = CPU, sharded: bool = False) -> Precision:
    compute = load_config(None, overrides=words).config.compute_precision if words else ComputePrecision()
    return choose_precision(name, compute, parts=PARTS, device=device, sharded=sharded)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_named_precision_is_what_matrix_products_run_in(name: str, dtype: torch.dtype) -> None:
    precision = chosen(name)
    for part in PARTS:
        with precision.formats("student", part):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert precision.needs_scaler == (name == "fp16")
    assert precision.name == name


def test_auto_takes_what_the_processor_multiplies_natively_and_says_why() -> None:
    precision = chosen("auto")
    features = torch.cpu.get_capabilities()
    native = features.get("amx_bf16") or features.get("avx512_bf16")
    assert precision.name == ("bf16" if native else "fp32")
    assert precision.reason.startswith("auto: this CPU has")


def test_auto_on_a_gpu_gives_each_part_its_own_format() -> None:
    precision = chosen("auto", f"{BACKBONE}.param_dtype=bf16", f"{BACKBONE}.reduce_dtype=fp32", device=GPU)
    layout = precision.layouts["student", "backbone"]
    assert (layout.param_dtype, layout.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert precision.layouts["teacher", "backbone"].param_dtype == torch.float16
    assert precision.name == "bf16 and fp16"
    assert precision.needs_scaler, "the head computes in fp16"


def test_a_named_precision_also_exchanges_gradients_in_it_unless_they_are_exchanged_in_full() -> None:
    layouts = chosen("bf16", device=GPU).layouts
    assert layouts["student", "backbone"].reduce_dtype == torch.bfloat16
    assert layouts["student", "dino_head"].reduce_dtype == torch.float32


def test_sharded_parts_bring_themselves_into_their_format() -> None:
    with chosen("bf16", sharded=True).formats("student", "backbone"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
