"""The teacher sees the monitored pictures, where it lies: no copy of its weights is made.

In: the networks of the training, and this process's pictures. Out: features of all pictures, in their order, on every
process. A sharded teacher gathers its weights as in a step, so all processes make the same number of forward passes.

Nothing is drawn at random, the mode of the networks stays as it is (the teacher has no layer that depends on it), the
centres are not moved, and gathered weights are let go of.

Legend: N pictures over all processes, n of this one, D width, K prototypes, W processes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.batch import normalise
from dinov2.distributed import World, gather_rows, let_go, sum_over_ranks
from dinov2.loss.chunks import CHUNK_BYTES, row_chunks
from dinov2.train.monitors.spread import patch_smoothness
from dinov2.train.step import StepTools

ENTROPY_PICTURES = 512  # that assignments are made of; a table of their logits is held
HEAD = "dino_head"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is looked at and how; the same at every look."""

    num_pictures: int  # N
    batch_size: int  # of a forward pass on one process
    mean: tuple[float, ...]  # of each channel
    std: tuple[float, ...]

    def share(self, world: World) -> int:
        """Pictures of the process that has most."""
        return -(-self.num_pictures // world.size)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the teacher says of all monitored pictures, in their order, on the device of the process."""

    cls: Tensor  # float32 [N, D], the normed class token
    pooled: Tensor  # float32 [N, D], the mean of the normed patch tokens
    smoothness: Tensor  # float32 [N], see `spread.patch_smoothness`
    entropy: float | None  # nats, mean over pictures of the entropy of an assignment; None without a head for them
    marginal_entropy: float | None  # nats, of the mean assignment
    prototype_usage: float | None  # distinct prototypes that are a picture's first choice, of as many as could be


@torch.no_grad()
def look(tools: StepTools, pictures: Tensor, *, what: Look, temperature: float) -> Seen:
    """Features and assignments.  Called by every process, with its uint8 pictures [n, S, S]."""
    world, networks = tools.world, tools.networks
    per_process = what.share(world)
    # Compiled blocks hold one form per shape, so the last batch is filled up to the shape of the others.
    batch_size = what.batch_size if tools.form.compiled else min(what.batch_size, per_process)
    num_judged = -(-min(ENTROPY_PICTURES, what.num_pictures) // world.size) if HEAD in networks.teacher else 0
    logits: list[Tensor] = []
    rows: list[Tensor] = []
    for start in range(0, per_process, batch_size):
        some = pictures[start : start + batch_size]
        filled = some.new_zeros(batch_size, *some.shape[1:])
        filled[: len(some)] = some
        crops = normalise(filled.to(world.device), mean=what.mean, std=what.std)
        with tools.precision.formats("teacher", "backbone"):
            features = networks.teacher["backbone"](crops, is_training=True)
        tokens, patches = features["x_norm_clstoken"], features["x_norm_patchtokens"].float()
        smooth = patch_smoothness(patches).unsqueeze(1)
        rows.append(torch.cat([tokens.float(), patches.mean(dim=1), smooth], dim=1))  # [b, 2 D + 1]
        if start < num_judged:
            with tools.precision.formats("teacher", HEAD):
                said = networks.teacher[HEAD](tokens)
            logits.append(said[: max(0, min(len(some), num_judged - start))])
    everywhere = gather_rows(torch.cat(rows)[:per_process], world=world)  # [W * share, 2 D + 1]
    by_process = everywhere.view(world.size, per_process, -1)
    ordered = by_process.transpose(0, 1).flatten(0, 1)[: what.num_pictures]
    assigned = _assignments(tools, torch.cat(logits), temperature=temperature) if logits else (None, None, None)
    if tools.precision.sharded:
        let_go(networks.teacher)
    width = (ordered.shape[1] - 1) // 2
    return Seen(
        cls=ordered[:, :width],
        pooled=ordered[:, width:-1],
        smoothness=ordered[:, -1],
        entropy=assigned[0],
        marginal_entropy=assigned[1],
        prototype_usage=assigned[2],
    )


def most_entropy(num_prototypes: int, *, num_pictures: int) -> float:
    """The largest entropy, in nats, that the mean of so many one-sided assignments can have."""
    return math.log(min(num_prototypes, ENTROPY_PICTURES, num_pictures))


def _assignments(tools: StepTools, logits: Tensor, *, temperature: float) -> tuple[float, float, float]:
    """Of assignments as the training makes them, over all processes: mean entropy, entropy of the mean, usage.

    Usage is the number of prototypes that are some picture's first choice, over the smaller of K and the pictures.
    [n, K]; a process may have none.
    """
    loss = tools.networks.dino_loss
    assign = loss.balanced if tools.objective.sinkhorn else loss.centred
    assignment = assign(logits, temperature)
    entropy, marginal = logits.new_zeros(1, dtype=torch.float32), torch.zeros_like(assignment.center)
    chosen = torch.zeros_like(marginal)
    if len(logits):
        entropy, marginal = (assignment.mean_entropy() * len(logits)).view(1), assignment.mean() * len(logits)
        for chunk in row_chunks(*logits.shape, chunk_bytes=CHUNK_BYTES):
            chosen[assignment.rows(chunk).argmax(dim=1)] = 1
    count = entropy.new_full((1,), len(logits))
    total = sum_over_ranks(torch.cat([entropy, count, marginal, chosen]), world=tools.world)
    marginal, chosen = total[2:].chunk(2)
    mean = marginal / total[1]
    usage = int(torch.count_nonzero(chosen)) / min(len(mean), int(total[1]))
    return float(total[0] / total[1]), float(torch.special.entr(mean).sum()), usage
