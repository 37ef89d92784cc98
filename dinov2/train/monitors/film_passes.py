"""Teacher and student see the films, where they lie: no copy of any weight is made.

In: the networks of the training, the films and their masks. Out: `Glimpse` on the main process.

Every process passes all films, for a sharded network needs all of them and there are few films; so nothing depends on
how many processes there are. The student is asked without drop path, uncompiled, and is left as it was: nothing is
drawn at random, no centre moves, gathered weights are let go of.

Legend: F films, S side in pixels, P = h x w patches, D width, M hidden patches of all films, R patches of pictures
beside them (see `films`), K prototypes, b bottleneck; of a layer: B pictures, T tokens each, H heads, d width of one.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinov2.batch import normalise
from dinov2.distributed import let_go
from dinov2.layers import Block
from dinov2.layers.kernels import AttentionKernel
from dinov2.layers.packing import Groups, unpack
from dinov2.loss.assignment import ONE_PROCESS, Assignment, sinkhorn_assignment
from dinov2.loss.chunks import CHUNK_BYTES, row_chunks
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.ssl.networks import backbone_of
from dinov2.train.monitors.films import Shown
from dinov2.train.monitors.passes import Look
from dinov2.train.step import StepTools

BRIGHT = 0.99  # share of a film's patches whose attention is told apart; what is above is as bright as can be


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What the networks make of the films; see `dinov2.looks.Look`."""

    tokens: Tensor  # float32 [F, P, D], the teacher's normed patch tokens
    attention: NDArray[np.uint8]  # [F, h, w]
    agreement: NDArray[np.uint8]  # [F, h, w]


@torch.no_grad()
def see_films(tools: StepTools, shown: Shown, *, what: Look, temperature: float) -> Glimpse | None:
    """Called by every process; None but on the main one."""
    teacher = backbone_of(tools.networks.teacher)
    hidden = torch.from_numpy(shown.masks).flatten(1)  # [F, P]
    tokens, attention, of_teacher, of_student = [], [], [], []
    with _asked(teacher) as heard, _asked(backbone_of(tools.networks.student)):
        for pixels, mask in zip(
            torch.split(shown.pixels, what.batch_size), torch.split(hidden, what.batch_size), strict=True
        ):
            films = normalise(pixels.to(tools.world.device), mean=what.mean, std=what.std)
            masks = mask.to(tools.world.device)
            features = _features(tools, "teacher", films, masks=None)
            tokens.append(features.float())
            attention.append(heard.pop())
            if hidden.any():
                of_teacher.append(features[masks])
                of_student.append(_features(tools, "student", films, masks=masks)[masks])
        if of_teacher:
            of_teacher += _beside(tools, shown, what=what)
    values = (
        _agreement(tools, torch.cat(of_teacher), torch.cat(of_student), temperature=temperature) if of_teacher else None
    )
    if tools.precision.sharded:
        let_go(tools.networks.teacher)
        let_go(tools.networks.student)
    if not tools.world.is_main:
        return None
    agreement = torch.zeros(hidden.shape, device=tools.world.device)
    if values is not None:
        agreement[hidden.to(agreement.device)] = values
    looked = torch.cat(attention)  # [F, P]
    bright = looked.quantile(BRIGHT, dim=1, keepdim=True)
    return Glimpse(
        tokens=torch.cat(tokens),
        attention=_as_levels(looked / bright).reshape(shown.masks.shape),
        agreement=_as_levels(agreement).reshape(shown.masks.shape),
    )


def _beside(tools: StepTools, shown: Shown, *, what: Look) -> Iterator[Tensor]:
    """The teacher's tokens of some patches of other pictures.  -> [., D] of every batch, R in all"""
    if not len(shown.beside):
        return
    for pixels, patches in zip(
        torch.split(shown.beside, what.batch_size), torch.split(shown.patches_beside, what.batch_size), strict=True
    ):
        pictures = normalise(pixels.to(tools.world.device), mean=what.mean, std=what.std)
        features = _features(tools, "teacher", pictures, masks=None)  # [B, P, D]
        chosen = patches.to(features.device).unsqueeze(2).expand(-1, -1, features.shape[2])
        yield features.gather(1, chosen).flatten(0, 1)


def _features(tools: StepTools, side: str, films: Tensor, *, masks: Tensor | None) -> Tensor:
    """Normed patch tokens.  [B, C, S, S] -> [B, P, D]"""
    with tools.precision.formats(side, "backbone"):
        features = tools.networks.parts(side)["backbone"](films, masks, is_training=True)
    patches: Tensor = features["x_norm_patchtokens"]
    return patches


def _agreement(tools: StepTools, of_teacher: Tensor, of_student: Tensor, *, temperature: float) -> Tensor | None:
    """max(0, 1 - cross-entropy / ln K) of every hidden patch, on the main process.  [M + R, D], [M, D] -> float32 [M]

    The teacher's assignment is made among all its rows; those of the hidden patches come first.
    """
    networks, name = tools.networks, tools.networks.patch_head
    with tools.precision.formats("teacher", name):
        logits = networks.teacher[name](of_teacher)  # [M + R, K]
    with tools.precision.formats("student", name):
        features, prototypes = networks.student[name](of_student, as_projection=True)  # [M, b], [K, b]
    if not tools.world.is_main:
        return None
    # Every process has all films, so nothing is summed over processes.
    loss = networks.ibot_patch_loss
    balanced = partial(sinkhorn_assignment, temperature=temperature, reductions=ONE_PROCESS)
    assignment = balanced(logits) if tools.objective.sinkhorn else loss.centred(logits, temperature)
    entropies = cross_entropies(features, prototypes, assignment, temperature=loss.student_temp)
    return (1 - entropies / math.log(len(prototypes))).clamp(min=0)


def cross_entropies(features: Tensor, prototypes: Tensor, assignment: Assignment, *, temperature: float) -> Tensor:
    """Of every row, in nats, a chunk of rows at a time.  [M, b], [K, b] -> float32 [M]"""
    values = features.new_zeros(len(features), dtype=torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        for chunk in row_chunks(len(features), len(prototypes), chunk_bytes=CHUNK_BYTES):
            student = (features[chunk] @ prototypes.T).float() / temperature
            values[chunk] = student.logsumexp(dim=1) - (student * assignment.rows(chunk)).sum(dim=1)
    return values


@contextmanager
def _asked(backbone: DinoVisionTransformer) -> Iterator[list[Tensor]]:
    """For the time of the block: no drop path, no compiled form, and what the class token attends to is written down.

    Each forward pass adds attention over patches, float32 [B, P], to the list. Compiled blocks would otherwise be
    compiled once more for the number of films.
    """
    heard: list[Tensor] = []
    blocks = [block for block in backbone.blocks if isinstance(block, Block)]
    modes = [(module, module.training) for module in backbone.modules()]
    forms = [block.compute for block in blocks]
    layer = blocks[-1].attn
    kernel = layer.kernel
    try:
        backbone.eval()
        for block in blocks:
            block.compute = None
        layer.kernel = _listening(kernel, heard, first_patch=1 + backbone.num_register_tokens)
        yield heard
    finally:
        layer.kernel = kernel
        for block, form in zip(blocks, forms, strict=True):
            block.compute = form
        _restore(modes)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training


def _listening(kernel: AttentionKernel, heard: list[Tensor], *, first_patch: int) -> AttentionKernel:
    """The same kernel, which adds the attention of the class token over patches to a list."""

    def attend(qkv: Tensor, groups: Groups) -> Tensor:
        (of_films,) = unpack(qkv, groups)  # [B, T, 3, H, d]
        query, keys = of_films[:, 0, 0].float(), of_films[:, :, 1].float()
        with torch.autocast(qkv.device.type, enabled=False):
            scores = torch.einsum("bhd,bthd->bht", query, keys) * query.shape[-1] ** -0.5
            heard.append(scores.softmax(dim=-1)[..., first_patch:].mean(dim=1))
        return kernel(qkv, groups)

    return attend


def _as_levels(shares: Tensor) -> NDArray[np.uint8]:
    """0..1 to 0..255; what is not a number becomes 0."""
    levels = (torch.nan_to_num(shares, nan=0.0) * 255).round().clamp(0, 255)
    return levels.to(torch.uint8).cpu().numpy()
