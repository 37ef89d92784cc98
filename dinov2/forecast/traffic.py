"""Bytes that a step reads and writes beside its products of matrices, by closed formulas.

In: `Dimensions`. Out: bytes by part and by pass. These operations compute little and wait for memory: norms, GELU,
residuals, logits after their product, weights, the optimiser, the teacher's average. What a product itself reads and
writes belongs to its share of the peak.

Legend: r tokens that go through a branch, a all tokens, D width, F hidden width, e bytes of an entry, K prototypes.
"""

from dataclasses import dataclass

import torch

from dinov2.forecast.dimensions import Dimensions
from dinov2.forecast.flops import PASSES, linear_layers
from dinov2.forecast.parameters import num_parameters, units_of
from dinov2.forecast.sharding import Processes, slice_numel

PARTS = ("blocks", "logits", "weights in use", "optimiser", "teacher's average", "clipping")
UPDATE = "update"

# Per parameter of a process, float32. AdamW reads weight, gradient and two moments, writes three of them; the average
# reads two and writes one; clipping reads the gradient for its norm, then reads and writes it.
ADAMW_BYTES, AVERAGE_BYTES, CLIPPING_BYTES = 7 * 4, 3 * 4, 3 * 4
# Per parameter and pass: a copy in half precision is made (reads 4, writes 2) and back for its gradient.
CAST_BYTES = 6
# Per parameter of the prototypes and pass, in float32: the norm of each row and its gradient.
WEIGHT_NORM_BYTES = 64
# What `dinov2.layers.halves` touches besides: two norms again, each read and written, the tokens between the branches,
# and results that are put together from parts; per weight of a block, the sums of its gradients over the parts.
NORMS_AGAIN = 27
SUMS_BYTES = 21
# Per weight of a block and pass, in float32: LayerScale is taken into every other matrix.
SCALES_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Touches:
    """How often one block goes over tensors of width D and of width F, per token that goes through a branch.

    Forward: two norms (each reads and writes), two residuals (read two, write one), GELU. Backward: their gradients,
    those of the biases, and queries, keys and values put together. In fp16 two LayerScales besides; otherwise their
    factors are in the matrices. A compiler joins what follows on each other: LayerScale, residual and norm are then one
    reading and writing.
    """

    forward_width: int
    forward_hidden: int
    forward_gated: int  # in place of it where the feed-forward is gated, of width F of one half
    backward_width: int
    backward_hidden: int
    backward_gated: int
    scale_forward: int  # of width D, where LayerScale is computed by itself
    scale_backward: int
    packing: int  # results of attention put into one row where there are several sizes of crops, forward
    dropping_kept: int  # forward and backward, of kept tokens, where drop path takes some of them
    dropping_all: int  # and of all tokens
    again: bool  # checkpointing does norms and activation functions once more; a compiler sees to that itself
    student_logit_bytes: int  # per entry of [M, K], against targets computed from the teacher's logits on the way
    teacher_logit_bytes: int  # per entry, Sinkhorn's three rounds


EAGER = Touches(
    forward_width=10,
    forward_hidden=2,
    forward_gated=5,
    backward_width=29,
    backward_hidden=4,
    backward_gated=15,
    scale_forward=4,
    scale_backward=12,
    packing=2,
    dropping_kept=24,
    dropping_all=20,
    again=True,
    student_logit_bytes=130,
    teacher_logit_bytes=90,
)
COMPILED = Touches(
    forward_width=9,
    forward_hidden=2,
    forward_gated=3,
    backward_width=24,
    backward_hidden=4,
    backward_gated=7,
    scale_forward=0,
    scale_backward=0,
    packing=2,
    dropping_kept=10,
    dropping_all=10,
    again=False,
    student_logit_bytes=30,
    teacher_logit_bytes=30,
)

Traffic = dict[str, dict[str, float]]
"""part -> pass or "update" -> bytes"""


def step_traffic(dims: Dimensions, *, processes: Processes, compiled: bool) -> Traffic:
    """Bytes of one pass, and of the update behind it."""
    touches = COMPILED if compiled else EAGER
    table: Traffic = {part: dict.fromkeys((*PASSES, UPDATE), 0.0) for part in PARTS}
    table["blocks"] |= blocks(dims, touches=touches)
    table["logits"] |= logits(dims, touches=touches)
    table["weights in use"] |= weights_in_use(dims)
    held = student_slice(dims, processes=processes)
    table["optimiser"][UPDATE] = ADAMW_BYTES * held
    table["teacher's average"][UPDATE] = AVERAGE_BYTES * held
    table["clipping"][UPDATE] = CLIPPING_BYTES * held
    return table


def blocks(dims: Dimensions, *, touches: Touches) -> dict[str, float]:
    """`e x sum over blocks of rows x (touches of D x D + touches of F x F)`, by pass; the teacher drops nothing.

    Half of what is of width D belongs to attention, half to the feed-forward, which may see fewer rows.
    """
    several = touches.packing if len(dims.student) > 1 else 0
    (taught, taught_inside), (kept, inside) = (_rows_of_all_blocks(dims, side) for side in ("teacher", "student"))
    everyone = dims.depth * sum(size.rows for size in dims.student)
    dropping = touches.dropping_kept * kept + touches.dropping_all * everyone if dims.drops_paths else 0.0
    inner = dims.hidden * (touches.forward_gated if dims.gated else touches.forward_hidden)
    scales = int(dims.layer_scale and dims.compute_dtype == torch.float16)
    forward = (touches.forward_width + scales * touches.scale_forward) * dims.width
    hidden = dims.hidden * (touches.backward_gated if dims.gated else touches.backward_hidden)
    backward = (touches.backward_width + scales * touches.scale_backward) * dims.width
    by_pass = {
        "teacher": taught * forward + taught_inside * inner,
        "student forward": kept * (forward + several * dims.width) + inside * inner + dropping * dims.width / 2,
        "student backward": kept * backward + inside * hidden + dropping * dims.width / 2,
    }
    if dims.checkpointing == "full":
        by_pass["computed again"] = by_pass["student forward"]
    elif dims.checkpointing in ("branches", "pointwise", "selective") and touches.again:
        by_pass["computed again"] = kept * NORMS_AGAIN * dims.width + inside * inner
    moved = {name: dims.token_entry_bytes * size for name, size in by_pass.items()}
    weights = dims.depth * linear_layers(dims) / 2  # FLOPs of a token: two a weight
    if dims.layer_scale and not scales:
        for name in ("teacher", "student forward", "student backward"):
            moved[name] += SCALES_BYTES * weights
    if "computed again" in by_pass and dims.checkpointing != "full":
        moved["computed again"] += SUMS_BYTES * weights
    return moved


def _rows_of_all_blocks(dims: Dimensions, side: str) -> tuple[float, float]:
    """Tokens that see what is of width D, and what is inside the feed-forward."""
    blocks_of = dims.rows_of_blocks(side)
    return sum((rows.attention + rows.feed_forward) / 2 for rows in blocks_of), sum(r.feed_forward for r in blocks_of)


def logits(dims: Dimensions, *, touches: Touches) -> dict[str, float]:
    """`rows x K x bytes an entry`: value and gradient in one go in the student's forward pass, Sinkhorn before it."""
    teacher = sum(head.teacher_rows * head.prototypes for head in dims.heads)
    student = sum(head.student_rows * head.prototypes for head in dims.heads)
    of_teacher = touches.teacher_logit_bytes if dims.sinkhorn else 0
    return {"teacher": teacher * of_teacher, "student forward": student * touches.student_logit_bytes}


def weights_in_use(dims: Dimensions) -> dict[str, float]:
    """`parameters x 6` for copies in half precision, each way; `K b x 64` a side for the norms of the prototypes."""
    sides = {"teacher": 0.0, "student": 0.0}
    for unit in units_of(dims):
        if dims.formats[unit.side, unit.part].param_dtype != torch.float32:
            sides[unit.side] += CAST_BYTES * num_parameters(unit)
    norms = sum(WEIGHT_NORM_BYTES * head.prototypes * head.widths[-1] for head in dims.heads)
    teacher = sides["teacher"] + norms if dims.teacher else 0.0
    return {
        "teacher": teacher,
        "student forward": sides["student"] + norms,
        "student backward": sides["student"] + norms,
    }


def student_slice(dims: Dimensions, *, processes: Processes) -> int:
    """Entries of the student's parameters on one process."""
    return sum(
        slice_numel(unit, sharing=processes.sharing(dims.formats[unit.side, unit.part].strategy))
        for unit in units_of(dims)
        if unit.side == "student"
    )
