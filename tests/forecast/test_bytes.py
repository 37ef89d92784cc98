"""Parameters, activations and moved bytes by formula, against what the networks are and real operations touch."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinov2.config.load import load_config
from dinov2.forecast.activations import kept_activations
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.parameters import units_of
from dinov2.forecast.rehearsal import Rehearsal
from dinov2.forecast.sharding import Processes
from dinov2.forecast.traffic import EAGER, blocks, step_traffic, student_slice
from tests.forecast.steps import batch_of, formats_of, num_masked, one_process, small_config

CLINICAL = (  # sizes of a real network; its tensors have no memory here
    "student.arch=vit_custom",
    "student.embed_dim=384",
    "student.num_heads=6",
    "student.depth=3",
    "student.patch_size=14",
    "crops.global_crops_size=224",
    "crops.local_crops_size=98",
    "dino.head_n_prototypes=8192",
    "ibot.head_n_prototypes=4096",
)
KINDS = (
    ((), 1),
    (("student.ffn_layer=swiglu", "student.num_register_tokens=4", "ibot.separate_head=true"), 2),
    (("student.layerscale=0", "student.ffn_bias=false", "student.qkv_bias=false", "student.in_chans=1"), 1),
    (("student.ffn_layer=identity", "student.proj_bias=false", "ibot.loss_weight=0", "dino.head_nlayers=1"), 1),
)


@pytest.mark.parametrize(("words", "heads"), KINDS)
def test_units_and_shapes_are_those_of_the_networks(words: tuple[str, ...], heads: int) -> None:
    config = small_config(*words)
    dims = dimensions_of(config, pictures=2, processes=1)
    rehearsal = Rehearsal(config, formats=formats_of(config), num_processes=1, on_gpu=False)
    found = {(u.side, u.part, u.block): sorted(u.shapes) for u in rehearsal.units}
    assert {(u.side, u.part, u.block): sorted(u.shapes) for u in units_of(dims)} == found
    assert [u.number for u in units_of(dims)] == [u.number for u in rehearsal.units]
    assert len(dims.heads) == heads
    alone = Processes(size=1, group_size=1, accumulation_steps=1)
    assert student_slice(dims, processes=alone) == sum(p.numel() for p in rehearsal.networks.student.parameters())


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (2, ("runtime.activation_checkpointing=none", "runtime.compile=never")),
        (2, ("student.drop_path_rate=0", "runtime.precision=fp32")),
        (2, ("runtime.activation_checkpointing=full", "runtime.precision=fp16")),
        (2, ("runtime.compile=never", "student.ffn_layer=swiglu")),
        (1, ("runtime.precision=bf16",)),
        (1, ("runtime.precision=bf16", "runtime.activation_checkpointing=none", "student.drop_path_rate=0")),
        (2, ("student.ffn_layer=swiglu", "student.num_register_tokens=4", "ibot.separate_head=true")),
        (2, ("crops.local_crops_number=0", "student.layerscale=0")),
        (2, ("runtime.attention=explicit", "runtime.activation_checkpointing=none", "student.drop_path_rate=0")),
    ],
)
def test_kept_activations_are_those_of_a_rehearsed_step(processes: int, words: tuple[str, ...]) -> None:
    config = load_config(None, overrides=[*CLINICAL, *words]).config
    dims = dimensions_of(config, pictures=8, processes=processes, masked=600)
    rehearsal = Rehearsal(config, formats=dims.formats, num_processes=processes, on_gpu=True)
    counted = sum(rehearsal.step(batch_size=8, num_masked=600).saved.values())
    assert kept_activations(dims).total == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("words", [(), ("student.drop_path_rate=0", "runtime.activation_checkpointing=pointwise")])
def test_kept_activations_on_a_cpu_are_those_of_a_rehearsed_step(precision: str, words: tuple[str, ...]) -> None:
    config = load_config(None, overrides=[*CLINICAL, f"runtime.precision={precision}", *words]).config
    dims = dimensions_of(config, pictures=8, processes=1, masked=600, on_gpu=False)
    rehearsal = Rehearsal(config, formats=dims.formats, num_processes=1, on_gpu=False)
    counted = sum(rehearsal.step(batch_size=8, num_masked=600).saved.values())
    assert kept_activations(dims).total == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    "words",
    [
        ("student.drop_path_rate=0", "runtime.activation_checkpointing=none"),
        ("student.drop_path_rate=0", "runtime.activation_checkpointing=selective"),
        ("student.drop_path_rate=0.3", "runtime.activation_checkpointing=none"),
        ("student.drop_path_rate=0", "student.ffn_layer=swiglu", "runtime.activation_checkpointing=none"),
    ],
)
def test_bytes_that_a_block_moves_are_those_its_operations_touch(words: tuple[str, ...]) -> None:
    sizes = ("runtime.precision=fp32", "runtime.attention=sdpa", "student.embed_dim=192", "train.batch_size_per_gpu=8")
    touched, formula = [], []
    for depth in (1, 2):  # the difference is one block
        config = small_config(*sizes, *words, "student.layerscale=1", f"student.depth={depth}")
        touched.append(_touched(config))
        dims = dimensions_of(config, pictures=8, processes=1, on_gpu=False, masked=num_masked(config))
        formula.append(sum(blocks(dims, touches=EAGER).values()))
    assert formula[1] - formula[0] == pytest.approx(touched[1] - touched[0], rel=0.1)


def test_more_processes_move_fewer_bytes_for_the_optimiser() -> None:
    config = small_config("runtime.precision=bf16")
    dims = dimensions_of(config, pictures=4, processes=4)
    moved = [
        step_traffic(dims, processes=Processes(size=size, group_size=size, accumulation_steps=1), compiled=False)
        for size in (2, 4)
    ]
    assert moved[1]["optimiser"]["update"] < 0.6 * moved[0]["optimiser"]["update"]
    compiled = step_traffic(dims, processes=Processes(size=4, group_size=4, accumulation_steps=1), compiled=True)
    assert sum(compiled["blocks"].values()) < sum(moved[1]["blocks"].values())


def _touched(config: Any) -> int:
    tools, batch = one_process(config), batch_of(config)
    views = batch.views(mean=config.data.mean, std=config.data.std)
    with _Touched() as touched:
        losses = tools.objective(tools.networks, views, teacher_temperature=0.05, formats=tools.precision.formats)
        torch.autograd.backward(losses.total)
    return sum(touched.bytes.values())


class _Touched(TorchDispatchMode):
    """Bytes of what operations read and write, views and products of matrices left out."""

    PRODUCTS = ("mm", "addmm", "bmm", "convolution", "convolution_backward")
    NOTHING = ("empty", "empty_like", "new_empty", "detach")
    ROWS_ONLY = ("index", "index_select")  # of their source, the rows they take

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        left_out = func.is_view or name in (*self.PRODUCTS, *self.NOTHING) or "attention" in name
        if func.namespace == "aten" and not left_out:
            touched = [out, out] if name in self.ROWS_ONLY else [args, kwargs, out]
            self.bytes[name] += sum(t.nbytes for t in tree_leaves(touched) if isinstance(t, Tensor))
        return out
