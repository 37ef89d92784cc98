"""FLOPs of one forward and backward pass, by closed formulas.

In: `Dimensions`. Out: FLOPs by part of the networks and by pass. A multiplication with its addition is two; counted is
what `torch.utils.flop_counter` counts: products of matrices, convolutions, attention. Norms, GELU, softmax, losses,
the optimiser are bytes, not FLOPs, and are counted in `dinov2.forecast.traffic`.

Legend: r rows, T tokens a crop, D width, F hidden width, M masked patches, b bottleneck, K prototypes. The last block
ends with the tokens that a loss reads, the CLS tokens and M: its other tokens only give keys and values.
"""

from collections.abc import Iterable
from itertools import pairwise

from dinov2.forecast.dimensions import BlockRows, Dimensions, Head

PASSES = ("teacher", "student forward", "student backward", "computed again")
PARTS = ("patch embedding", "linear layers", "attention", "head MLP", "prototypes", "KoLeo")

# Products of whole blocks that are computed once more in the backward pass, by `runtime.activation_checkpointing`.
COMPUTED_AGAIN = {"full": ("linear layers", "attention")}

Flops = dict[str, dict[str, float]]
"""part -> pass -> FLOPs"""


def step_flops(dims: Dimensions) -> Flops:
    """FLOPs of one pass over `dims.pictures` pictures, every part by every pass."""
    table: Flops = {part: dict.fromkeys(PASSES, 0.0) for part in PARTS}
    _backbone(dims, table)
    for head in dims.heads:
        for part, per_row in (("head MLP", mlp_of_head(head)), ("prototypes", prototypes(head))):
            table[part]["teacher"] += head.teacher_rows * per_row
            table[part]["student forward"] += head.student_rows * per_row
            table[part]["student backward"] += 2 * head.student_rows * per_row
    table["KoLeo"]["student forward"] += koleo(dims)
    for part in COMPUTED_AGAIN.get(dims.checkpointing, ()):
        table[part]["computed again"] = table[part]["student forward"]
    for block, rows in enumerate(dims.rows_of_blocks("student")):
        if dims.is_joined(block) and not dims.keeps_normed:
            table["linear layers"]["computed again"] += rows.output * output_matrix(dims)
        if dims.checkpointing == "selective":
            table["linear layers"]["computed again"] += rows.feed_forward * first_matrix(dims)
    return table


def total(table: Flops, *, passes: Iterable[str] = PASSES) -> float:
    """The sum over all parts."""
    chosen = tuple(passes)
    return sum(by_pass[name] for by_pass in table.values() for name in chosen)


def _backbone(dims: Dimensions, table: Flops) -> None:
    per_patch = patch_embedding(dims)
    of_teacher, of_student = (
        sum(block_layers(dims, rows) for rows in dims.rows_of_blocks(side)) for side in ("teacher", "student")
    )
    table["linear layers"] |= {
        "teacher": of_teacher,
        "student forward": of_student,
        "student backward": 2 * of_student,
    }
    for size in dims.teacher:
        table["patch embedding"]["teacher"] += size.number * size.patches * per_patch
        table["attention"]["teacher"] += dims.depth * size.number * attention(dims, tokens=size.tokens)
    for place, size in enumerate(dims.student):
        crops = sum(kept[place] for kept in dims.kept)  # over all blocks
        forward, backward = "student forward", "student backward"
        table["patch embedding"][forward] += size.number * size.patches * per_patch
        # Pictures need no gradient: only that of the weights.
        table["patch embedding"][backward] += size.number * size.patches * per_patch
        attended = crops * attention(dims, tokens=size.tokens)
        table["attention"][forward] += attended
        # Four products of this size in pairs, and the weights again where they are not kept.
        table["attention"][backward] += attended * (2.0 if dims.keeps_scores(size.tokens) else 2.5)


def patch_embedding(dims: Dimensions) -> float:
    """Of one patch, forward: `2 C P^2 D`; backward the same again, for pictures need no gradient."""
    return 2.0 * dims.patch_values * dims.width


def linear_layers(dims: Dimensions) -> float:
    """Of one token in one block, forward; backward twice that (gradients of the input and of the weights).

    Queries, keys, values `2 D 3D`, output `2 D D`; feed-forward `2 D F + 2 F D`, gated `2 D 2F + 2 F D` (SwiGLU, F the
    width of one half).
    """
    return block_layers(dims, BlockRows(attention=1, output=1, feed_forward=1))


def block_layers(dims: Dimensions, rows: BlockRows) -> float:
    """The same of all tokens of one block."""
    feed_forward = (6.0 if dims.gated else 4.0) * dims.width * dims.hidden
    squares = 6.0 * rows.attention + 2.0 * rows.output
    return squares * dims.width**2 + rows.feed_forward * feed_forward


def output_matrix(dims: Dimensions) -> float:
    """Of one token in one block, what the tokens between the branches take to compute again: `2 D D`."""
    return 2.0 * dims.width * dims.width


def first_matrix(dims: Dimensions) -> float:
    """Of one token in one block, what selective checkpointing computes again: `2 D F`, gated `2 D 2F`."""
    return (4.0 if dims.gated else 2.0) * dims.width * dims.hidden


def attention(dims: Dimensions, *, tokens: int) -> float:
    """Of one crop in one block, forward: scores `2 T^2 D` and mixed values `2 T^2 D`.

    Backward two products each: twice that. A fused kernel does not keep the scores and computes them again: 2.5 times
    (FlashAttention-2, arXiv 2307.08691, section 4.1).
    """
    return 4.0 * tokens**2 * dims.width


def mlp_of_head(head: Head) -> float:
    """Of one row, forward: `2 in out` for every layer; backward twice that."""
    return sum(2.0 * before * after for before, after in pairwise(head.widths))


def prototypes(head: Head) -> float:
    """Of one row, forward: `2 b K`; backward twice that (gradients of the features and of the prototypes)."""
    return 2.0 * head.widths[-1] * head.prototypes


def koleo(dims: Dimensions) -> float:
    """Inner products of each global crop's CLS tokens with those among which neighbours are sought: `2 (2 B A D)`."""
    rows, everyone = dims.koleo_rows
    return 2 * 2.0 * rows * everyone * dims.width
