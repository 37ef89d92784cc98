"""What looks wrong before a run has begun: each in words, with the reason and what to do.

In: what is known of a run (`Facts`). Out: doubts, which stop nothing. A doubt stands here only where something speaks
for it: the code's own arithmetic, a published recipe, or runs that were made and failed (the numbers are named).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.config.schema import Config
from dinov2.data.stream import MAX_GUARD
from dinov2.forecast.data import DataReport
from dinov2.forecast.launch import Launch, strategies
from dinov2.forecast.memory import GIB, MemoryReport
from dinov2.forecast.plan import Plan
from dinov2.layers.drop_path import num_kept

FEW_PASSES, MANY_PASSES = 5, 1000  # the published chest runs made 96 and 290
WARMUP_SHARE = 1 / 3
# Peak learning rates of published recipes over sqrt(pictures per step / 1024).
LOWEST_BASE_LR, HIGHEST_BASE_LR = 2e-4, 4e-3
CONTINUED_BASE_LR = 1e-3  # of the one recipe that continues public weights on chest films
MARGIN = 2.0
SMALL_BATCH = 256
PROTOTYPES_PER_PICTURE = 8
WEAK_LAYERSCALE = 1e-2
KEPT_APART = 0.05  # of a drop rate


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the doubts look at; None where it could not be found out."""

    config: Config
    given: frozenset[str]  # keys that the file or an override set
    launch: Launch
    plan: Plan
    data: DataReport | None
    memory: MemoryReport | None
    rate: float | None  # pictures per second and process


def doubts(facts: Facts) -> tuple[str, ...]:
    """Every doubt, those about the data first."""
    return tuple(text for look in LOOKS for text in look(facts))


def _unreadable(facts: Facts) -> Iterator[str]:
    if facts.data and facts.data.unreadable:
        count, share = len(facts.data.unreadable), len(facts.data.unreadable) / facts.data.num_sampled
        yield (
            f"{count} of {facts.data.num_sampled} sampled pictures cannot be read ({share:.1%}); the run stops above "
            f"data.max_unreadable_share = {facts.config.data.max_unreadable_share:g}. dinov2 manifest check names all "
            "of them; leave them out with data.exclude=FILES.csv."
        )


def _small_films(facts: Facts) -> Iterator[str]:
    sizes, crop = (facts.data.sizes if facts.data else None), facts.config.crops.global_crops_size
    if sizes and sizes.share_below_crop > 0:
        yield (
            f"{sizes.share_below_crop:.0%} of the sampled pictures have a short side below crops.global_crops_size = "
            f"{crop} (median {sizes.median}): even a crop of the whole picture is blown up. Convert them at a larger "
            "size, or take smaller crops."
        )


def _copies(facts: Facts) -> Iterator[str]:
    copies = facts.data.copies if facts.data else None
    found = max((n for n in (copies.same_file, copies.same_look, copies.named) if n), default=0) if copies else 0
    if found and facts.config.dino.koleo_loss_weight:
        yield (
            f"{found:,} pictures are copies of others, and dino.koleo_loss_weight is on: it pushes copies in one batch "
            "apart, and exact ones have no direction to go. Leave copies out (duplicate_of is filled; or convert with "
            "the flag duplicate_pixels rejected)."
        )
    elif found:
        yield f"{found:,} pictures are copies of others: they count as often as they come. Leave copies out."


def _splits(facts: Facts) -> Iterator[str]:
    if not facts.data:
        return
    splits = facts.data.groups.get("split", {})
    held_out = sum(count for name, count in splits.items() if name.lower() in ("test", "val", "valid", "validate"))
    if held_out and not facts.config.data.splits:
        yield (
            f"data.splits is empty, and {held_out:,} pictures of the splits {', '.join(splits)} are trained on, those "
            "for evaluation among them. data.splits=[train] leaves them out."
        )
    if facts.data.num_split_patients:
        yield (
            f"{facts.data.num_split_patients:,} patients are in several splits ({facts.data.split_patients[0]}): what "
            "is measured on the others will be too good. dinov2 manifest split deals patients as a whole."
        )


def _batch_and_data(facts: Facts) -> Iterator[str]:
    if not facts.data:
        return
    batch, count = facts.plan.global_batch, facts.data.num_pictures
    if batch > count:
        yield (
            f"a step takes {batch:,} pictures and there are {count:,}: every step sees pictures more than once. Take a "
            "smaller batch."
        )
    elif batch > min(count // 3, MAX_GUARD) and facts.config.dino.koleo_loss_weight:
        yield (
            f"a step takes {batch:,} pictures of {count:,}: across the end of a pass one picture may be in a batch "
            "twice (it never is up to a third of the pictures and 8,192), which KoLeo pushes apart."
        )


def _passes(facts: Facts) -> Iterator[str]:
    passes = facts.plan.passes
    if passes is None:
        return
    if passes < FEW_PASSES:
        yield (
            f"{passes:.2g} passes over the data; the published chest encoders were taken after about 100. Raise "
            "optim.total_steps, unless this is a try."
        )
    elif passes > MANY_PASSES:
        yield (
            f"{passes:,.0f} passes over the data; the published chest encoders were taken after about 100 of 96 to "
            "290. Lower optim.total_steps, or gather more pictures."
        )


def _prototypes(facts: Facts) -> Iterator[str]:
    config, batch = facts.config, facts.plan.global_batch
    prototypes = config.dino.head_n_prototypes
    if config.dino.loss_weight and batch < SMALL_BATCH and prototypes > PROTOTYPES_PER_PICTURE * batch:
        yield (
            f"{prototypes:,} prototypes for {batch} pictures a step: measured runs of 64 films stayed at the uniform "
            "solution with 512 and 2,048 prototypes and left it with 256; of 32 films, with 4,096 and 65,536. Lower "
            "dino.head_n_prototypes (and ibot.head_n_prototypes), or raise the batch."
        )
    from_scratch = not config.student.pretrained_weights
    if from_scratch and batch < SMALL_BATCH and 0 < config.student.layerscale < WEAK_LAYERSCALE:
        yield (
            f"student.layerscale = {config.student.layerscale:g} from random weights with {batch} pictures a step: "
            "measured small runs stayed at the uniform solution; those that learned had student.layerscale=1 and "
            "optim.layerwise_decay=1."
        )


def _new_heads(facts: Facts) -> Iterator[str]:
    start, batch = facts.config.init_from, facts.plan.global_batch
    given = facts.config.student.pretrained_weights and not (start.dino_head and start.dino_head != "none")
    if given and batch < SMALL_BATCH and not start.freeze_backbone_steps:
        tenth = max(facts.plan.total_steps // 10, 1)
        yield (
            f"given weights and, unless their file holds heads, new ones, with {batch} pictures a step: a public "
            "replica of RAD-DINO with 32 collapsed so; what helped was to freeze the backbone for the first tenth and "
            "to let the heads learn ten times as fast meanwhile "
            f"(init_from.freeze_backbone_steps={tenth} init_from.head_lr_factor=10), and "
            "train.centering=sinkhorn_knopp."
        )


def _learning_rate(facts: Facts) -> Iterator[str]:
    peak, scale = facts.plan.peak_lr, math.sqrt(facts.plan.global_batch / 1024)
    base = peak / scale
    if not LOWEST_BASE_LR / MARGIN <= base <= HIGHEST_BASE_LR * MARGIN:
        yield (
            f"the learning rate peaks at {peak:.3g}; published recipes lie between {LOWEST_BASE_LR * scale:.2g} and "
            f"{HIGHEST_BASE_LR * scale:.2g} at {facts.plan.global_batch:,} pictures a step. Look at optim.base_lr, "
            "optim.scaling_rule and optim.lr."
        )
    elif facts.config.student.pretrained_weights and base > CONTINUED_BASE_LR * MARGIN:
        yield (
            f"the learning rate peaks at {peak:.3g}, from given weights; the known recipe that continues them on chest "
            f"films has {CONTINUED_BASE_LR * scale:.2g} at this batch (optim.base_lr=0.001)."
        )


def _lengths(facts: Facts) -> Iterator[str]:
    config, plan = facts.config, facts.plan
    if plan.warmup_steps > WARMUP_SHARE * plan.total_steps:
        yield (
            f"the warm-up of the learning rate takes {plan.warmup_steps:,} of {plan.total_steps:,} steps, more than a "
            "third; 5 to 16% is usual. Lower optim.warmup_steps."
        )
    if config.checkpoint.every_steps > plan.total_steps:
        yield (
            f"checkpoint.every_steps = {config.checkpoint.every_steps:,} is longer than the run of "
            f"{plan.total_steps:,} steps: only its end is saved, and an interruption costs everything."
        )
    if config.evaluation.eval_period_iterations > plan.total_steps:
        yield (
            f"evaluation.eval_period_iterations = {config.evaluation.eval_period_iterations:,} is longer than the run "
            f"of {plan.total_steps:,} steps: the teacher is exported once, at the end."
        )


def _layout(facts: Facts) -> Iterator[str]:
    set_keys = sorted(facts.given & set(strategies(facts.config)))
    if facts.launch.processes == 1 and set_keys:
        yield f"{', '.join(set_keys)}: without effect, because one process shards nothing."
    dino, alone = facts.config.dino, facts.launch.processes > 1 and facts.launch.batch_size == 1
    if alone and dino.koleo_loss_weight and not dino.koleo_over_all_processes:
        yield (
            "every process sees one picture at a time, which has no neighbour for KoLeo: that term is 0. "
            "dino.koleo_over_all_processes=true seeks neighbours in all batches."
        )


def _drop_path(facts: Facts) -> Iterator[str]:
    rate, batch = facts.config.student.drop_path_rate, facts.launch.batch_size
    if not rate:
        return
    crops = NUM_GLOBAL_CROPS * batch
    real = 1 - num_kept(crops, rate=rate) / crops
    if abs(real - rate) > KEPT_APART:
        yield (
            f"student.drop_path_rate = {rate:g}: of the {crops} global crops of a forward pass a whole number is kept, "
            f"so {real:.2f} are dropped. Take a larger batch per process, or a rate that divides."
        )


def _workers(facts: Facts) -> Iterator[str]:
    if not facts.data:
        return
    workers, cores = facts.config.train.num_workers, facts.data.cores
    here = min(facts.launch.processes, facts.launch.per_node)
    if workers * here > cores:
        yield (
            f"train.num_workers = {workers} for each of {here} process(es) of a machine; this one has {cores} cores "
            f"for them. If the run's machines are alike, train.num_workers={max(1, cores // here)}."
        )
    if facts.rate and facts.data.pictures_per_core_second:
        needed = math.ceil(facts.rate / facts.data.pictures_per_core_second)
        if needed > max(workers, 1):
            yield (
                f"{facts.rate:g} pictures/s per process need {needed} data workers at the "
                f"{facts.data.pictures_per_core_second:.0f} pictures/s that a core of this machine prepares; "
                f"train.num_workers = {workers}. Raise it, or store pictures at a smaller size."
            )


def _tight(facts: Facts) -> Iterator[str]:
    memory = facts.memory
    if memory and not memory.on_gpu and memory.rows[0].peak.total > memory.limit:
        yield (
            f"each process needs {memory.rows[0].peak.total / GIB:.1f} GiB, and this machine has "
            f"{memory.capacity / GIB:.1f} for each. train.batch_size_per_gpu={memory.rows[0].largest_batch} would fit."
        )
        return
    if memory and memory.limit < memory.rows[0].peak.total <= memory.capacity:
        largest = memory.rows[0].largest_batch
        yield (
            f"{memory.rows[0].peak.total / GIB:.1f} of {memory.capacity / GIB:.0f} GiB leave less than a tenth for "
            f"what is not counted (context, communication, gaps). train.batch_size_per_gpu={largest} leaves it."
        )


def _disk(facts: Facts) -> Iterator[str]:
    plan = facts.plan
    if plan.disk_free is not None and plan.checkpoint_bytes * 2 <= plan.disk_free < plan.disk_bytes:
        yield (
            f"{plan.num_kept} checkpoints, one being written, and {plan.num_exports} exports take "
            f"{plan.disk_bytes / GIB:.1f} GiB, and {plan.disk_free / GIB:.1f} are free. Lower checkpoint.keep_last, or "
            "raise checkpoint.keep_every_steps or evaluation.eval_period_iterations."
        )


LOOKS: tuple[Callable[[Facts], Iterator[str]], ...] = (
    _unreadable,
    _small_films,
    _copies,
    _splits,
    _batch_and_data,
    _passes,
    _prototypes,
    _new_heads,
    _learning_rate,
    _lengths,
    _layout,
    _drop_path,
    _workers,
    _tight,
    _disk,
)
