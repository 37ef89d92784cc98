"""What a step keeps from its forward pass for its backward pass, by closed formulas.

In: `Dimensions`. Out: bytes by what they belong to. The truth is the rehearsal (`dinov2.forecast.rehearsal`), which
counts what the code itself keeps; these formulas say why it is so much, and a test holds them to it.

Legend: r tokens that go through a branch, a all tokens, D width, F hidden width, H heads, b bottleneck, K prototypes;
e bytes of an entry in the format of the products, s of the tokens between the blocks, n of what a norm gives out.
"""

from dataclasses import dataclass

import torch

from dinov2.forecast.dimensions import Dimensions, Head

FLOAT32 = 4
NORM_STATISTICS = 2  # mean and inverse deviation of a token, in float32


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes of one process at the end of its forward pass, weights left out."""

    blocks: float
    backbone_ends: float  # pictures in the products' format, tokens before the first and after the last block
    heads: float
    losses: float  # gradients of features and prototypes, which the losses compute in their forward pass

    @property
    def total(self) -> float:
        """The sum."""
        return self.blocks + self.backbone_ends + self.heads + self.losses


def kept_activations(dims: Dimensions) -> Activations:
    """All of them."""
    return Activations(
        blocks=blocks(dims),
        backbone_ends=_backbone_ends(dims),
        heads=sum(_head(dims, head) for head in dims.heads),
        losses=sum(_losses(dims, head) for head in dims.heads),
    )


def blocks(dims: Dimensions) -> float:
    """Sum over blocks of `r x bytes of a token`; under full checkpointing `a D s` alone, the input of each block."""
    everyone = sum(size.rows for size in dims.student)
    if dims.checkpointing == "full":
        return float(dims.depth * everyone * dims.width * dims.token_entry_bytes)
    kept = _scores(dims)
    for block, rows in enumerate(dims.rows_of_blocks("student")):
        joined = dims.is_joined(block)
        of_token = token_bytes(dims, joined=joined)
        kept += rows.attention * of_token.attention + rows.output * of_token.output
        kept += rows.feed_forward * of_token.feed_forward + (0.0 if joined else _scaled_matrices(dims))
    return kept


@dataclass(frozen=True, kw_only=True)
class TokenBytes:
    """What the parts of a block keep of a token; see `BlockRows`."""

    attention: float
    output: float
    feed_forward: float


def token_bytes(dims: Dimensions, *, joined: bool) -> TokenBytes:
    """Of one token in one block; `joined`: the tokens between its branches are computed again.

    Attention: input `D s`, normed `D e`, queries, keys and values `3 D e`, result `D e`; of a fused kernel one float a
    head besides, and the result twice where crops of several sizes are put into one row afterwards. Feed-forward:
    input `D s`, normed `D e`, hidden `F e` before and after GELU (gated: `4 F e`). In fp16 both outputs for LayerScale,
    `2 D e`.
    Checkpointing keeps neither what norms nor what activation functions give nor the feed-forward's output for
    LayerScale; pointwise nor the feed-forward's input, selective nor anything hidden. Where products are narrower than
    tokens it keeps what each norm gives, `D e` and a float, in place of its input. Drop path keeps what it adds to the
    kept crops, `2 D s`, and that input.
    """
    width, entry, residual = dims.width, dims.compute_dtype.itemsize, dims.token_entry_bytes
    keeps = dims.checkpointing == "none"
    normed = width * entry + NORM_STATISTICS * FLOAT32 if keeps else 0
    scaled = width * entry if dims.layer_scale and dims.compute_dtype == torch.float16 else 0
    of_hidden = {"none": 2, "selective": 0}.get(dims.checkpointing, 1)  # before and after the activation function
    hidden = of_hidden * dims.hidden * (2 if dims.gated else 1)
    of_fused = width * entry + dims.num_heads * FLOAT32 if dims.fused_attention else 0
    twice = len(dims.student) > 1 and dims.fused_attention and not dims.attended_in_row
    added = width * residual if dims.drops_paths and not joined else 0
    of_input = width * entry + FLOAT32 if dims.keeps_normed else width * residual
    before = of_input + normed + 3 * width * entry + of_fused
    behind = (width * entry if twice or not dims.fused_attention else 0) + (0 if joined else scaled) + added
    second_input = 0 if joined and not dims.keeps_normed else of_input
    feed_forward = hidden * entry + (scaled if keeps else 0) + normed + added + second_input
    return TokenBytes(attention=before, output=behind, feed_forward=feed_forward)


def _scores(dims: Dimensions) -> float:
    """Of attention that keeps its softmax, `T T H e` a crop and block."""
    crops = [sum(kept[place] for kept in dims.kept) for place in range(len(dims.student))]  # over all blocks
    kept = [n * s.tokens**2 for n, s in zip(crops, dims.student, strict=True) if dims.keeps_scores(s.tokens)]
    return float(sum(kept) * dims.num_heads * dims.compute_dtype.itemsize)


def _scaled_matrices(dims: Dimensions) -> float:
    """The last matrix of each branch times its LayerScale: `D D e` of attention, `F D e` of the feed-forward.

    What goes through `dinov2.layers.halves` makes it again.
    """
    if not dims.layer_scale or dims.compute_dtype == torch.float16:
        return 0.0
    columns = dims.width + (dims.hidden if dims.checkpointing == "none" else 0)
    return float(columns * dims.width * dims.compute_dtype.itemsize)


def _backbone_ends(dims: Dimensions) -> float:
    """Pictures `values of a patch x e`, in float32 those of the batch; input of the final norm, `D s` a token read."""
    patches = sum(size.number * size.patches for size in dims.student)
    tokens = dims.rows_of_blocks("student")[-1].feed_forward
    width, entry = dims.width, dims.compute_dtype.itemsize
    pictures = patches * dims.patch_values * entry if entry < FLOAT32 else 0
    return pictures + tokens * (width * dims.token_entry_bytes + NORM_STATISTICS * FLOAT32)


def _head(dims: Dimensions, head: Head) -> float:
    """`rows x (inputs of every layer, hidden before GELU, bottleneck)`, and the normalised prototypes `K b`."""
    entry = dims.formats["student", head.name].param_dtype.itemsize
    first, *inner, bottleneck = head.widths
    per_row = first * entry + 2 * sum(inner) * entry + bottleneck * (entry + 2 * FLOAT32)
    return head.student_rows * per_row + head.prototypes * FLOAT32


def _losses(dims: Dimensions, head: Head) -> float:
    """Gradients in float32: `rows x b`, and `K b` for each loss that goes through the head."""
    calls = int(head.patches > 0) + (len(dims.student) if head.student_cls else 0)
    return FLOAT32 * head.widths[-1] * (head.student_rows + calls * head.prototypes)
