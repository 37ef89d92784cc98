"""The range of every number, each looked at alone.

In: a `Config`. Out: a fault for each number outside its range. Rules between keys are in `dinov2.config.rules`.
"""

import math
from collections.abc import Callable, Iterator

from dinov2.config.keys import Fault, leaves, value_of
from dinov2.config.schema import Config

Test = Callable[[float], bool]


def _keys(listing: str) -> tuple[str, ...]:
    """`section: name name` lines to dotted keys."""
    lines = (line.split(":") for line in listing.strip().splitlines())
    return tuple(f"{section.strip()}.{name}" for section, names in lines for name in names.split())


def _probabilities() -> tuple[str, ...]:
    return tuple(key for key in leaves(Config) if key.startswith("augmentation.") and key.endswith("_p"))


AT_LEAST_1 = _keys("""
    train: batch_size_per_gpu global_batch_size OFFICIAL_EPOCH_LENGTH
    student: patch_size in_chans embed_dim depth num_heads
    crops: global_crops_size local_crops_size
    dino: head_n_prototypes head_bottleneck_dim head_nlayers head_hidden_dim
    ibot: head_n_prototypes head_bottleneck_dim head_nlayers head_hidden_dim
    optim: total_steps
    runtime: gradient_accumulation_steps shard_group_size max_nonfinite_steps garbage_collection_steps
    runtime: exchange_timeout_seconds stall_seconds slow_data_seconds
    checkpoint: every_steps
    logging: every_steps
    monitors: max_pictures batch_size patience
    data: prefetch_batches
    augmentation: blur_kernel
""")
NOT_NEGATIVE = _keys("""
    train: seed num_workers saveckp_freq
    crops: local_crops_number
    student: num_register_tokens layerscale interpolate_offset block_chunks
    dino: loss_weight koleo_loss_weight
    ibot: loss_weight
    optim: weight_decay weight_decay_end lr min_lr clip_grad warmup_epochs freeze_last_layer_epochs
    optim: warmup_steps freeze_last_layer_steps patch_embed_lr_mult
    teacher: warmup_teacher_temp_epochs warmup_teacher_temp_steps
    evaluation: eval_period_iterations
    checkpoint: keep_last keep_every_steps keep_best
    monitors: every_steps size films
    init_from: freeze_backbone_steps
    augmentation: brightness contrast
""")
POSITIVE = _keys("""
    optim: epochs base_lr layerwise_decay
    teacher: warmup_teacher_temp teacher_temp
    student: mlp_ratio
    data: cache_gib
    init_from: head_lr_factor
""")
SHARES = _keys("""
    ibot: mask_sample_probability
    teacher: momentum_teacher final_momentum_teacher
    data: max_unreadable_share
    monitors: uniform_share one_prototype_share min_rank_share max_cosine
""")
# Single numbers: words -> (test, keys). `null` is not tested: it takes a default that is in range.
RANGES: dict[str, tuple[Test, tuple[str, ...]]] = {
    "at least 1": (lambda x: x >= 1, AT_LEAST_1),
    "0 or more": (lambda x: x >= 0, NOT_NEGATIVE),
    "more than 0": (lambda x: x > 0, POSITIVE),
    "from 0 to 1": (lambda x: 0 <= x <= 1, (*SHARES, *_probabilities())),
    "at least 10": (lambda x: x >= 10, ("runtime.lost_seconds",)),
    "at least 0 and less than 1": (
        lambda x: 0 <= x < 1,
        ("student.drop_path_rate", "optim.adamw_beta1", "optim.adamw_beta2"),
    ),
    "more than 0 and at most 1": (lambda x: 0 < x <= 1, ("data.fraction",)),
    "from 0 to 180": (lambda x: 0 <= x <= 180, ("augmentation.rotation_degrees",)),
    "a grey level from 0 to 256 (never)": (lambda x: 0 <= x <= 256, ("augmentation.solarize_threshold",)),
}
# Pairs (low, high): key -> (words, test of low, test of high). That low <= high is tested for all of them.
PAIRS: dict[str, tuple[str, Test, Test]] = {
    "crops.global_crops_scale": ("0 < smallest <= largest <= 1", lambda x: x > 0, lambda x: x <= 1),
    "crops.local_crops_scale": ("0 < smallest <= largest <= 1", lambda x: x > 0, lambda x: x <= 1),
    "ibot.mask_ratio_min_max": ("0 <= least <= most <= 1", lambda x: x >= 0, lambda x: x <= 1),
    "augmentation.crop_ratio": ("0 < narrowest <= widest", lambda x: x > 0, math.isfinite),
    "augmentation.gamma": ("0 < least <= most", lambda x: x > 0, math.isfinite),
    "augmentation.blur_sigma": ("0 < least <= most", lambda x: x > 0, math.isfinite),
}


def single_numbers(config: Config) -> Iterator[Fault]:
    """A fault for every number outside its range, or not finite."""
    for words, (test, keys) in RANGES.items():
        for key in keys:
            value = value_of(config, key)
            if value is not None and not (math.isfinite(value) and test(value)):
                yield Fault(f"{key} = {value}: must be {words}.", (key,))


def pairs(config: Config) -> Iterator[Fault]:
    """A fault for every pair of numbers that is out of range or in the wrong order."""
    for key, (words, low_test, high_test) in PAIRS.items():
        pair = value_of(config, key)
        if pair is not None and not (low_test(pair[0]) and pair[0] <= pair[1] and high_test(pair[1])):
            yield Fault(f"{key} = {list(pair)}: must be two numbers with {words}.", (key,))
