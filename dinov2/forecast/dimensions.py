"""The numbers on which the cost of a step depends, and nothing else.

In: a configuration, pictures per process and forward pass, the number of processes. Out: `Dimensions`, from which
FLOPs, bytes, activations and exchanges follow by closed formulas, without a network being built.

Legend: B pictures, G = 2 global and L local crops, T tokens a crop (CLS, registers, patches), D width, F hidden width
of the feed-forward, H heads, b bottleneck and K prototypes of a head, M masked patches, S processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.config.schema import Config, Runtime
from dinov2.data.masking import mask_recipe
from dinov2.layers.block import Checkpointing
from dinov2.layers.drop_path import num_kept
from dinov2.layers.halves import keeps_normed
from dinov2.layers.kernels import EXPLICIT_UP_TO_TOKENS, keeps_weights
from dinov2.layers.swiglu import swiglu_width
from dinov2.models.registry import architecture_arguments
from dinov2.models.vision_transformer import drop_path_rates
from dinov2.ssl.networks import needed_heads
from dinov2.ssl.precision import Layouts, choose_precision

POSITIONS_LOOKED_AT = 1024  # of the sample stream, for the mean number of masked patches
GATED = ("swiglu", "swiglufused")


@dataclass(frozen=True, kw_only=True)
class CropSize:
    """All crops of one size that go through a network together."""

    number: int  # crops of one process
    patches: int  # N of one crop
    tokens: int  # T of one crop: CLS, registers, patches

    @property
    def rows(self) -> int:
        """Tokens of all crops."""
        return self.number * self.tokens


@dataclass(frozen=True, kw_only=True)
class BlockRows:
    """Tokens that go through the parts of one block."""

    attention: float  # with its norm and its first matrix
    output: float  # attention's second matrix
    feed_forward: float  # with its norm


@dataclass(frozen=True, kw_only=True)
class Head:
    """A projection head and the tokens that go through it."""

    name: str
    widths: tuple[int, ...]  # D, hidden ..., b
    prototypes: int
    teacher_cls: int  # CLS tokens of the teacher
    student_cls: int
    patches: int  # masked patches, of either

    @property
    def teacher_rows(self) -> int:
        """Tokens of the teacher."""
        return self.teacher_cls + self.patches

    @property
    def student_rows(self) -> int:
        """Tokens of the student."""
        return self.student_cls + self.patches


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """One forward and backward pass of one process."""

    pictures: int
    processes: int
    channels: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    hidden: int  # F; of a gated feed-forward the width of one half; 0: there is none
    gated: bool
    biases: tuple[bool, bool, bool]  # of queries/keys/values, of attention's output, of the feed-forward
    registers: int
    positions: int  # entries of the position table: 1 + patches of a global crop
    layer_scale: bool
    teacher: tuple[CropSize, ...]  # empty where no loss asks the teacher
    student: tuple[CropSize, ...]
    kept: tuple[tuple[int, ...], ...]  # of each block, the crops of each student size that go through a branch
    heads: tuple[Head, ...]
    masks: bool  # whether the student's patches are hidden at all
    masked: float  # M
    koleo_rows: tuple[int, int]  # rows of one crop, and rows among which neighbours are sought; (0, 0): no KoLeo
    sinkhorn: bool
    fused_attention: bool  # a kernel that recomputes the scores in the backward pass
    attended_in_row: bool  # its results are written into the row, and kept there alone
    checkpointing: Checkpointing  # see `checkpointing_of`
    formats: Layouts
    only_read: bool = True  # whether the last block leaves out what no loss reads, as it does

    @property
    def patch_values(self) -> int:
        """Grey levels of a patch, in all channels."""
        return self.channels * self.patch_size**2

    @property
    def drops_paths(self) -> bool:
        """Whether branches see a part of the crops."""
        return any(kept != tuple(size.number for size in self.student) for kept in self.kept)

    def is_joined(self, block: int) -> bool:
        """Whether nothing is kept of the tokens between the two branches of a block but what a norm makes of them."""
        return self.checkpointing in ("pointwise", "selective") and self._sees_everyone(block)

    @property
    def compute_dtype(self) -> torch.dtype:
        """The number format of the student's backbone."""
        return self.formats["student", "backbone"].param_dtype

    @property
    def token_entry_bytes(self) -> int:
        """Of the tokens between the blocks: float32 in one process under autocast, where there is LayerScale."""
        return self._token_dtype.itemsize

    @property
    def keeps_normed(self) -> bool:
        """Whether blocks keep what their norms give instead of what they were given."""
        by_halves = self.checkpointing in ("branches", "pointwise", "selective")
        return by_halves and keeps_normed(self._token_dtype, self.compute_dtype)

    @property
    def _token_dtype(self) -> torch.dtype:
        mixed = self.processes == 1 and self.layer_scale
        return torch.float32 if mixed else self.compute_dtype

    def keeps_scores(self, tokens: int) -> bool:
        """Whether attention over so many tokens keeps its softmax for the backward pass."""
        return not self.fused_attention and keeps_weights(tokens, self.width // self.num_heads)

    def rows_of_blocks(self, side: str) -> list[BlockRows]:
        """Of the "student" or the "teacher", which drops nothing. The last block ends with the tokens that are read."""
        if side == "teacher":
            of_blocks = [float(sum(size.rows for size in self.teacher))] * self.depth
        else:
            of_blocks = [
                float(sum(k * s.tokens for k, s in zip(kept, self.student, strict=True))) for kept in self.kept
            ]
        found = [BlockRows(attention=rows, output=rows, feed_forward=rows) for rows in of_blocks]
        if self.only_read:
            last, read = of_blocks[-1], self._read(side)
            chosen_before = side == "teacher" or self._sees_everyone(self.depth - 1)
            found[-1] = BlockRows(attention=last, output=read if chosen_before else last, feed_forward=read)
        return found

    def _sees_everyone(self, block: int) -> bool:
        return self.kept[block] == tuple(size.number for size in self.student)

    def _read(self, side: str) -> float:
        """CLS tokens and masked patches; a head's CLS tokens are all there are."""
        if side == "student":
            return sum(size.number for size in self.student) + self.masked
        return max((head.teacher_cls for head in self.heads), default=0) + (self.masked if self.teacher else 0.0)


def is_compiled(runtime: Runtime, *, on_gpu: bool) -> bool:
    """Whether blocks are compiled, where nothing on the machine keeps them from it (`dinov2.train.form` asks that)."""
    return runtime.compile == "always" or (runtime.compile == "auto" and on_gpu and runtime.attention != "xformers")


def checkpointing_of(runtime: Runtime, *, on_gpu: bool) -> Checkpointing:
    """What the backward pass computes again; of a compiled block the nearest that an eager one can do."""
    how = runtime.activation_checkpointing
    return "branches" if is_compiled(runtime, on_gpu=on_gpu) and how != "full" else how


def dimensions_of(
    config: Config, *, pictures: int, processes: int, on_gpu: bool = True, masked: float | None = None
) -> Dimensions:
    """`masked` patches in all; None takes the mean over the run's first positions.

    Raises ConfigError where the architecture does not fit together.
    """
    student = config.student
    size = architecture_arguments(student, img_size=config.crops.global_crops_size)
    gated = student.ffn_layer in GATED
    hidden = int(size["embed_dim"] * size["mlp_ratio"])
    masked = (mean_masked(config) * pictures) if masked is None else masked
    global_size, local_size = _sizes(config, pictures=pictures)
    with_local = config.dino.loss_weight > 0 and local_size.number > 0
    crops = (global_size, local_size) if with_local else (global_size,)
    rates = drop_path_rates(student.drop_path_rate, depth=size["depth"], uniform=student.drop_path_uniform)
    formats = choose_precision(
        config.runtime.precision,
        config.compute_precision,
        parts=("backbone", *needed_heads(dino=config.dino, ibot=config.ibot)),
        device=torch.device("cuda" if on_gpu else "cpu"),
        sharded=processes > 1,
    ).layouts
    everyone = pictures * (processes if config.dino.koleo_over_all_processes else 1)
    return Dimensions(
        pictures=pictures,
        processes=processes,
        channels=student.in_chans,
        patch_size=student.patch_size,
        width=size["embed_dim"],
        depth=size["depth"],
        num_heads=size["num_heads"],
        hidden={"identity": 0}.get(student.ffn_layer, swiglu_width(hidden) if gated else hidden),
        gated=gated,
        biases=(student.qkv_bias, student.proj_bias, student.ffn_bias),
        registers=student.num_register_tokens,
        positions=1 + global_size.patches,
        layer_scale=bool(student.layerscale),
        teacher=(global_size,) if config.dino.loss_weight > 0 or config.ibot.loss_weight > 0 else (),
        student=crops,
        kept=tuple(tuple(num_kept(c.number, rate=rate) if rate else c.number for c in crops) for rate in rates),
        heads=tuple(_heads(config, crops, width=size["embed_dim"], masked=masked)),
        masks=config.ibot.loss_weight > 0,
        masked=masked,
        koleo_rows=(pictures, everyone) if config.dino.koleo_loss_weight > 0 else (0, 0),
        sinkhorn=config.train.centering == "sinkhorn_knopp",
        fused_attention=_is_fused(config, formats, crops=crops, on_gpu=on_gpu),
        attended_in_row=_is_in_row(config, formats, on_gpu=on_gpu),
        checkpointing=checkpointing_of(config.runtime, on_gpu=on_gpu),
        formats=formats,
    )


def mean_masked(config: Config) -> float:
    """Masked patches of one picture's global crops, mean over the first positions of the sample stream."""
    if config.ibot.loss_weight == 0:
        return 0.0
    recipe = mask_recipe(
        config.ibot,
        crop_size=config.crops.global_crops_size,
        patch_size=config.student.patch_size,
        seed=config.train.seed,
    )
    drawn = sum(
        recipe.target(position, crop=crop)
        for position in range(POSITIONS_LOOKED_AT)
        for crop in range(NUM_GLOBAL_CROPS)
    )
    return drawn / POSITIONS_LOOKED_AT


def _is_fused(config: Config, formats: Layouts, *, crops: tuple[CropSize, ...], on_gpu: bool) -> bool:
    """`auto` computes short crops in half precision explicitly on a CPU (`dinov2.layers.kernels`)."""
    half = formats["student", "backbone"].param_dtype.itemsize < torch.float32.itemsize
    short = max(size.tokens for size in crops) <= EXPLICIT_UP_TO_TOKENS
    automatic = config.runtime.attention == "auto" and not on_gpu and half and short
    return config.runtime.attention != "explicit" and not automatic


def _is_in_row(config: Config, formats: Layouts, *, on_gpu: bool) -> bool:
    """`auto` in float32 on a CPU (`dinov2.layers.kernels`); a compiled block takes torch's own function."""
    full = formats["student", "backbone"].param_dtype == torch.float32
    automatic = config.runtime.attention == "auto" and not on_gpu and full
    return automatic and not is_compiled(config.runtime, on_gpu=on_gpu)


def _sizes(config: Config, *, pictures: int) -> tuple[CropSize, CropSize]:
    """Global and local crops of `pictures`."""
    crops, student = config.crops, config.student
    numbers = (NUM_GLOBAL_CROPS * pictures, crops.local_crops_number * pictures)
    sides = (crops.global_crops_size, crops.local_crops_size)
    patches = [(side // student.patch_size) ** 2 for side in sides]
    of_global, of_local = (
        CropSize(number=number, patches=count, tokens=1 + student.num_register_tokens + count)
        for number, count in zip(numbers, patches, strict=True)
    )
    return of_global, of_local


def _heads(config: Config, crops: tuple[CropSize, ...], *, width: int, masked: float) -> Iterator[Head]:
    """CLS tokens go through `dino_head`, masked patches too unless iBOT has a head of its own."""
    separate = config.ibot.separate_head
    with_cls = config.dino.loss_weight > 0
    for name, section in needed_heads(dino=config.dino, ibot=config.ibot).items():
        cls = name == "dino_head" and with_cls
        patches = round(masked) if config.ibot.loss_weight > 0 and (name == "ibot_head" or not separate) else 0
        inner = [section.head_hidden_dim] * (max(section.head_nlayers, 1) - 1)
        yield Head(
            name=name,
            widths=(width, *inner, section.head_bottleneck_dim),
            prototypes=section.head_n_prototypes,
            teacher_cls=crops[0].number if cls else 0,
            student_cls=sum(crop.number for crop in crops) if cls else 0,
            patches=patches,
        )
