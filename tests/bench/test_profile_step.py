import pytest

from dinov2.bench.profile_step import kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("nvjet_hsh_192x192_64x3_1x2_h_bz_coopB_NNT", "matrix products"),
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("aten::bmm", "attention"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", "attention"),
        ("graph_1_cpp_fused__softmax_2", "attention"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "norms"),
        ("triton_per_fused_native_layer_norm_3", "norms"),
        ("triton_poi_fused__to_copy_gelu_4", "GELU"),
        (
            "void at::native::multi_tensor_apply_kernel<at::native::FusedAdamMathFunctor>",
            "optimiser, clipping, teacher",
        ),
        ("aten::_fused_adamw_", "optimiser, clipping, teacher"),
        ("Memcpy DtoD (Device -> Device)", "copies and casts"),
        ("aten::copy_", "copies and casts"),
        ("aten::_log_softmax", "softmax and losses"),
        ("aten::mul", "elementwise and the rest"),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_plain_operation_belongs_to_what_it_is_part_of() -> None:
    assert kind_of("aten::mul", around=("Optimizer.step#AdamW.step",)) == "optimiser, clipping, teacher"
    assert kind_of("aten::copy_", around=("_ExplicitBackward", "autograd")) == "attention"
    assert kind_of("aten::div", around=("losses",)) == "softmax and losses"
    assert kind_of("aten::mm", around=("_WithGradients",)) == "matrix products"


def test_what_has_a_number_for_every_prototype_is_a_loss() -> None:
    assert kind_of("aten::mul", shapes=((40, 64), ()), prototypes=64) == "softmax and losses"
    assert kind_of("aten::mul", shapes=((64,),), prototypes=64) == "elementwise and the rest"
