"""FLOPs by formula, against torch's own count of real steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from dinov2.config.load import load_config
from dinov2.forecast.cost import nominal
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.flops import step_flops, total
from dinov2.layers.products import ONES_ROWS
from tests.forecast.steps import batch_of, num_masked, one_process, small_config

RADDINO = Path(__file__).parents[2] / "configs" / "train" / "vitb14_cxr.yaml"
# What torch's counter does not know: products added in place, oneDNN's, and the CPU's fused attention, as a GPU's.
UNKNOWN_TO_TORCH = {
    torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1],
    torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * x[0] * x[1] * weight[0],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}
KINDS = (
    (),
    ("student.drop_path_rate=0", "runtime.activation_checkpointing=none"),
    ("student.drop_path_uniform=false", "student.depth=4", "runtime.attention=explicit"),
    ("student.ffn_layer=swiglu", "student.num_register_tokens=4", "ibot.separate_head=true"),
    ("student.ffn_layer=identity", "train.centering=sinkhorn_knopp"),
    ("crops.local_crops_number=0", "student.in_chans=1", "dino.head_nlayers=1"),
    ("runtime.activation_checkpointing=full", "runtime.attention=sdpa"),
    ("runtime.activation_checkpointing=pointwise", "student.ffn_layer=swiglu"),
    ("runtime.activation_checkpointing=full", "student.drop_path_rate=0.5", "runtime.attention=explicit"),
    ("ibot.loss_weight=0", "dino.koleo_loss_weight=0"),
    ("dino.loss_weight=0",),
)


@pytest.mark.parametrize("words", KINDS)
def test_the_formulas_give_what_torch_counts_in_a_real_step(words: tuple[str, ...]) -> None:
    config = small_config("runtime.precision=fp32", "train.batch_size_per_gpu=4", *words)
    tools, batch = one_process(config), batch_of(config)
    views = batch.views(mean=config.data.mean, std=config.data.std)
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter:
        losses = tools.objective(tools.networks, views, teacher_temperature=0.05, formats=tools.precision.formats)
        torch.autograd.backward(losses.total)
    dims = dimensions_of(config, pictures=4, processes=1, on_gpu=False, masked=num_masked(config))
    assert total(step_flops(dims)) == counter.get_total_flops()


def test_under_autocast_no_product_is_made_again_but_the_scores() -> None:
    words = ("student.drop_path_rate=0", "runtime.activation_checkpointing=pointwise", "runtime.attention=explicit")
    config = small_config("runtime.precision=bf16", "train.batch_size_per_gpu=5", *words)
    tools, batch = one_process(config), batch_of(config)
    views = batch.views(mean=config.data.mean, std=config.data.std)
    known = UNKNOWN_TO_TORCH | {torch.ops.aten.mm: _product_but_no_sum}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        losses = tools.objective(tools.networks, views, teacher_temperature=0.05, formats=tools.precision.formats)
        torch.autograd.backward(losses.total)
    dims = dimensions_of(config, pictures=5, processes=1, on_gpu=False, masked=num_masked(config))
    table = step_flops(dims)
    assert dims.keeps_normed
    assert total(table, passes=["computed again"]) == 0
    assert total(table) == counter.get_total_flops()


def _product_but_no_sum(a: list[int], b: list[int], **_: Any) -> int:
    return 0 if a[0] == ONES_ROWS else 2 * a[0] * a[1] * b[1]


def test_a_film_of_the_published_recipe_costs_what_is_known() -> None:
    config = load_config(RADDINO, overrides=[]).config
    dims = nominal(dimensions_of(config, pictures=40, processes=64))
    assert dims.checkpointing == "branches"  # as its compiled blocks do
    # Known is 3.34 TFLOP: every crop through every branch, attention's backward pass as twice its forward pass.
    table = step_flops(dims)
    scores_again = table["attention"]["student forward"] / 2
    assert (total(table) - scores_again) / 40 == pytest.approx(3.34e12, rel=0.002)
    # Every kernel computes the scores once more; drop path of 0.3 leaves out 28 to 30 of 100 crops.
    assert total(table) / 40 == pytest.approx(3.415e12, rel=0.002)


def test_cost_grows_with_the_batch_alone() -> None:
    config = small_config("student.drop_path_rate=0", "dino.koleo_loss_weight=0")
    small, large = (
        total(step_flops(dimensions_of(config, pictures=size, processes=1, masked=10.0 * size))) for size in (4, 12)
    )
    assert large == 3 * small
