"""Rules between keys, ranges of numbers, and messages about settings without effect."""

import math

import pytest

from dinov2.config import Config, load_config
from dinov2.config.keys import leaves
from dinov2.config.ranges import PAIRS, RANGES
from dinov2.errors import ConfigError

SHORT = ("optim.total_steps=50", "optim.warmup_steps=5", "optim.freeze_last_layer_steps=0")


def faults_of(*overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides=overrides)
    return caught.value.faults


def is_number(kind: object) -> bool:
    return kind in (int, float) or kind in (int | None, float | None)


def test_every_number_of_the_schema_has_a_range():
    numbers = {key for key, kind in leaves(Config).items() if is_number(kind)}
    ranged = [key for _, keys in RANGES.values() for key in keys]
    assert numbers == set(ranged)
    assert len(ranged) == len(set(ranged))


def test_every_pair_of_the_schema_has_a_range():
    pairs = {key for key, kind in leaves(Config).items() if "tuple[float, float]" in str(kind)}
    assert pairs == set(PAIRS)


@pytest.mark.parametrize("key", [key for _, keys in RANGES.values() for key in keys])
def test_a_number_far_outside_its_range_is_a_fault(key):
    (fault,) = faults_of(f"{key}=-7")
    assert fault.startswith(f"{key} = -7")
    assert "must be" in fault


def test_a_number_that_is_not_finite_is_a_fault():
    (fault,) = faults_of("optim.epochs=.inf")
    assert fault.startswith(f"optim.epochs = {math.inf}: must be more than 0.")
    (fault,) = faults_of("optim.base_lr=.nan")
    assert "optim.base_lr = nan: must be" in fault


@pytest.mark.parametrize("key", PAIRS)
@pytest.mark.parametrize("pair", ["[0.6, 0.5]", "[-0.1, 0.5]", "[0.1, .inf]"])
def test_a_pair_out_of_order_or_range_is_a_fault(key, pair):
    (fault,) = faults_of(f"{key}={pair}")
    assert fault.startswith(f"{key} = [")
    assert "must be two numbers with 0 <" in fault


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["student.patch_size=14"], "local_crops_size = 96: not a multiple of student.patch_size = 14. Take 84 or 98."),
        (["crops.global_crops_size=8"], "crops_size = 8: not a multiple of student.patch_size = 16. Take 16."),
        (["augmentation.blur_kernel=8"], "augmentation.blur_kernel = 8: must be odd, so that it has a centre. Take 9."),
        (["optim.epochs=0.0001"], "optim.epochs = 0.0001: less than one step of the 1250"),
        (["optim.epochs=10"], "optim.warmup_epochs = 10.0: the warm-up of the learning rate takes 12500 steps"),
        (
            ["optim.total_steps=50", "optim.warmup_steps=5"],
            "optim.freeze_last_layer_epochs = 1.0: the freeze of the last layer takes 1250 steps and the whole run 50.",
        ),
        (
            [*SHORT, "init_from.freeze_backbone_steps=50", "student.pretrained_weights=a.pth"],
            "init_from.freeze_backbone_steps = 50: the backbone would stay as it was given for all of the 50 steps.",
        ),
        (
            [*SHORT, "init_from.freeze_backbone_steps=5"],
            "init_from.freeze_backbone_steps = 5: without student.pretrained_weights the heads would learn on a random",
        ),
        (
            [
                *SHORT,
                "init_from.freeze_backbone_steps=5",
                "student.pretrained_weights=a.pth",
                "dino.loss_weight=0",
                "ibot.loss_weight=0",
            ],
            "dino.loss_weight and ibot.loss_weight are 0, so there is no head that could learn meanwhile",
        ),
        (["init_from.head_lr_factor=0"], "init_from.head_lr_factor = 0.0: must be more than 0."),
        ([*SHORT, "optim.warmup_steps=50"], "optim.warmup_steps = 50: the warm-up of the learning rate takes 50 steps"),
        (["dino.loss_weight=0", "ibot.loss_weight=0", "dino.koleo_loss_weight=0"], "all are 0, so nothing"),
        (["train.batch_size_per_gpu=1"], "with train.batch_size_per_gpu = 1 a picture has no neighbour"),
        (["ibot.mask_sample_probability=0"], "none of the 128 global crops of a batch would be masked"),
        (["ibot.mask_ratio_min_max=[0, 0.001]"], "hides less than one of the 196 patches of a crop."),
        (["data.mean=[0.1, 0.2]"], "data.mean = [0.1, 0.2]: 2 entries for student.in_chans = 3. Give 3, or one"),
        (["data.mean=[120]"], "data.mean = [120.0]: must lie from 0 to 1"),
        (["data.std=[0]"], "data.std = [0.0]: must be more than 0"),
        (["student.arch=vit_custom", "student.num_heads=5"], "not a multiple of student.num_heads = 5. Take 190"),
        (
            ["compute_precision.student.dino_head.sharding_strategy=NO_SHARD"],
            "dino_head.sharding_strategy = SHARD_GRAD_OP: lies over the processes in another way than the student's",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_a_fault(overrides, part):
    (fault,) = faults_of(*overrides)
    assert part in fault


@pytest.mark.parametrize(
    "overrides",
    [
        ["crops.local_crops_number=0", "crops.local_crops_size=97"],
        ["dino.loss_weight=0"],
        ["ibot.loss_weight=0", "ibot.mask_sample_probability=0"],
        ["dino.koleo_loss_weight=0", "train.batch_size_per_gpu=1"],
        ["student.in_chans=1", "data.mean=[0.5]", "data.std=[0.2]"],
        ["optim.warmup_steps=0", "optim.freeze_last_layer_steps=0", "optim.total_steps=1"],
        ["dino.koleo_over_all_processes=true", "train.batch_size_per_gpu=1"],
        ["train.global_batch_size=64"],
        ["compute_precision.student.backbone.sharding_strategy=FULL_SHARD"],
        ["checkpoint.keep_last=0", "evaluation.eval_period_iterations=0", "optim.clip_grad=0"],
    ],
)
def test_unusual_settings_that_work_are_accepted(overrides):
    assert load_config(None, overrides=overrides).given == {word.partition("=")[0] for word in overrides}


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["student.depth=6"], "student.depth: not read, because student.arch = vit_large; vit_custom reads them."),
        (["ibot.head_n_prototypes=512"], "ibot.head_n_prototypes: not read, because ibot.separate_head is false"),
        (["init_from.head_lr_factor=10"], "init_from.head_lr_factor: not read, because init_from.freeze_backbone"),
        (
            ["init_from.freeze_backbone_steps=1000", "student.pretrained_weights=a.pth"],
            "init_from.freeze_backbone_steps = 1000: the prototypes stand still for as long (1250 steps)",
        ),
        (["init_from.revision=v1", "student.pretrained_weights=a.pth"], "init_from.revision = v1: not read, because"),
        (["optim.epochs=200", "optim.total_steps=200000"], "optim.epochs: not read, because optim.total_steps = "),
        (["optim.lr=0.001", "optim.base_lr=0.002"], "optim.base_lr: not read, because optim.lr = 0.001 is the peak"),
        (["optim.total_steps=20000"], "teacher_temp = 0.07 is never reached: its warm-up takes 37500 steps"),
        (["crops.local_crops_size=256"], "crops.local_crops_size = 256 is larger than crops.global_crops_size = 224."),
        (["train.batch_size_per_gpu=8", "train.global_batch_size=64"], "train.batch_size_per_gpu: not read, because"),
        (["checkpoint.select_mode=min"], "checkpoint.select_mode: not read, because checkpoint.select_by names no"),
        (
            ["runtime.precision=bf16", "compute_precision.teacher.backbone.mixed_precision.param_dtype=fp32"],
            "mixed_precision.param_dtype: not read, because runtime.precision = bf16 holds for all.",
        ),
        (["runtime.device=cpu", "runtime.precision=fp16"], "runtime.precision = fp16 is slow on a CPU"),
        (
            ["student.num_register_tokens=4", "student.pretrained_weights=w.pth"],
            "student.interpolate_offset = 0.1: the public weights with register tokens were trained with",
        ),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_said_and_the_run_may_start(overrides, part):
    (message,) = load_config(None, overrides=overrides).messages
    assert part in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["ibot.head_n_prototypes=512", "ibot.separate_head=true"],
        ["ibot.head_n_prototypes=512", "dino.head_n_prototypes=512"],
        ["student.arch=vit_custom", "student.depth=6"],
        ["optim.total_steps=20000", "teacher.teacher_temp=0.04"],
    ],
)
def test_a_setting_that_is_read_needs_no_message(overrides):
    assert load_config(None, overrides=overrides).messages == ()
