"""Which values make a run possible together, beyond what types and ranges say.

In: a `Config`. Out: faults, each with what to do. Every rule is looked at; none stops at its first find.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from dinov2.config.keys import Fault, value_of
from dinov2.config.lengths import lengths
from dinov2.config.ranges import pairs, single_numbers
from dinov2.config.schema import Config

PROBES = ("knn", "linear")  # that can run beside a training
LOGGERS = ("tensorboard", "wandb", "mlflow")
LAYOUTS = {"FULL_SHARD": "sharded", "SHARD_GRAD_OP": "sharded", "HYBRID_SHARD": "hybrid", "NO_SHARD": "whole"}


def check(config: Config) -> tuple[Fault, ...]:
    """Every fault of a configuration whose types are right."""
    alone = [*single_numbers(config), *pairs(config)]
    wrong = {key for fault in alone for key in fault.keys}
    sound = _with_defaults(config, wrong)  # a rule between keys may then trust each of them
    together = [fault for rule in RULES for fault in rule(sound) if wrong.isdisjoint(fault.keys)]
    return (*alone, *together)


def fill(config: Config) -> Config:
    """The configuration with a single mean and std repeated for every input channel."""
    channels = config.student.in_chans
    mean, std = ((v * channels if len(v) == 1 else v) for v in (config.data.mean, config.data.std))
    return replace(config, data=replace(config.data, mean=mean, std=std))


def _with_defaults(config: Config, keys: Iterable[str]) -> Config:
    default = Config()
    for key in keys:
        section, name = key.split(".")
        changed = replace(getattr(config, section), **{name: value_of(default, key)})
        config = replace(config, **{section: changed})
    return config


def _crop_sizes(config: Config) -> Iterator[Fault]:
    patch, crops = config.student.patch_size, config.crops
    sizes = {"crops.global_crops_size": crops.global_crops_size}
    if crops.local_crops_number:
        sizes["crops.local_crops_size"] = crops.local_crops_size
    for key, size in sizes.items():
        if size % patch:
            multiples = [n for n in (size // patch * patch, (size // patch + 1) * patch) if n]
            yield Fault(
                f"{key} = {size}: not a multiple of student.patch_size = {patch}. "
                f"Take {' or '.join(map(str, multiples))}.",
                (key, "student.patch_size"),
            )


def _blur_kernel(config: Config) -> Iterator[Fault]:
    key, side = "augmentation.blur_kernel", config.augmentation.blur_kernel
    if side is not None and side % 2 == 0:
        yield Fault(f"{key} = {side}: must be odd, so that it has a centre. Take {side + 1}.", (key,))


def _length(config: Config) -> Iterator[Fault]:
    epochs, epoch = config.optim.epochs, config.train.OFFICIAL_EPOCH_LENGTH
    if lengths(config.optim, config.teacher, train=config.train).total < 1:
        yield Fault(
            f"optim.epochs = {epochs}: less than one step of the {epoch} of train.OFFICIAL_EPOCH_LENGTH. "
            "Set optim.total_steps.",
            ("optim.epochs", "train.OFFICIAL_EPOCH_LENGTH"),
        )


def _phases(config: Config) -> Iterator[Fault]:
    n = lengths(config.optim, config.teacher, train=config.train)
    phases = {
        "optim.warmup": ("the warm-up of the learning rate", n.warmup),
        "optim.freeze_last_layer": ("the freeze of the last layer", n.freeze_last_layer),
    }
    for name, (words, steps) in phases.items():
        if steps and steps >= n.total >= 1:
            key = f"{name}_epochs" if value_of(config, f"{name}_steps") is None else f"{name}_steps"
            yield Fault(
                f"{key} = {value_of(config, key)}: {words} takes {steps} steps and the whole run {n.total}. "
                f"Set {name}_steps below {n.total}, or make the run longer (optim.total_steps).",
                (key, "optim.total_steps", "optim.epochs", "train.OFFICIAL_EPOCH_LENGTH"),
            )


def _head_warm_up(config: Config) -> Iterator[Fault]:
    """A frozen backbone must be worth keeping, have heads to learn on it, and learn itself in the end."""
    key, frozen = "init_from.freeze_backbone_steps", config.init_from.freeze_backbone_steps
    total = lengths(config.optim, config.teacher, train=config.train).total
    if not frozen:
        return
    if frozen >= total >= 1:
        yield Fault(
            f"{key} = {frozen}: the backbone would stay as it was given for all of the {total} steps. "
            f"Set it below {total} (a tenth of the run is usual), or make the run longer (optim.total_steps).",
            (key, "optim.total_steps", "optim.epochs", "train.OFFICIAL_EPOCH_LENGTH"),
        )
    if not config.student.pretrained_weights:
        yield Fault(
            f"{key} = {frozen}: without student.pretrained_weights the heads would learn on a random backbone. Name "
            f"weights to start from, or set {key}=0.",
            (key, "student.pretrained_weights"),
        )
    if not config.dino.loss_weight and not config.ibot.loss_weight:
        yield Fault(
            f"{key} = {frozen}: dino.loss_weight and ibot.loss_weight are 0, so there is no head that could learn "
            f"meanwhile. Set {key}=0, or give a loss its weight.",
            (key, "dino.loss_weight", "ibot.loss_weight"),
        )


def _losses(config: Config) -> Iterator[Fault]:
    keys = ("dino.loss_weight", "dino.koleo_loss_weight", "ibot.loss_weight")
    if not any(value_of(config, key) for key in keys):
        yield Fault(f"{', '.join(keys)}: all are 0, so nothing would be learned. Give at least one a weight.", keys)


def _koleo_alone(config: Config) -> Iterator[Fault]:
    alone = config.train.batch_size_per_gpu == 1 and not config.train.global_batch_size
    if config.dino.koleo_loss_weight and alone and not config.dino.koleo_over_all_processes:
        yield Fault(
            f"dino.koleo_loss_weight = {config.dino.koleo_loss_weight}: with train.batch_size_per_gpu = 1 a picture "
            "has no neighbour to be spread from. Take at least 2 pictures, or dino.koleo_loss_weight=0.",
            ("dino.koleo_loss_weight", "train.batch_size_per_gpu"),
        )


def _masked_crops(config: Config) -> Iterator[Fault]:
    crops = 2 * (config.train.global_batch_size or config.train.batch_size_per_gpu)
    share = config.ibot.mask_sample_probability
    if config.ibot.loss_weight and int(crops * share) == 0:
        yield Fault(
            f"ibot.mask_sample_probability = {share}: none of the {crops} global crops of a batch would be masked, "
            f"while ibot.loss_weight = {config.ibot.loss_weight}. Raise it (0.5 is usual), raise "
            "train.batch_size_per_gpu, or set ibot.loss_weight=0.",
            ("ibot.mask_sample_probability", "ibot.loss_weight", "train.batch_size_per_gpu"),
        )


def _masked_patches(config: Config) -> Iterator[Fault]:
    ratios = config.ibot.mask_ratio_min_max
    patches = (config.crops.global_crops_size // config.student.patch_size) ** 2
    if config.ibot.loss_weight and patches and int(patches * ratios[1]) == 0:
        yield Fault(
            f"ibot.mask_ratio_min_max = {list(ratios)}: hides less than one of the {patches} patches of a crop. "
            "Raise its second number, or set ibot.loss_weight=0.",
            ("ibot.mask_ratio_min_max", "ibot.loss_weight", "crops.global_crops_size"),
        )


def _channels(config: Config) -> Iterator[Fault]:
    channels = config.student.in_chans
    for key in ("data.mean", "data.std"):
        values = value_of(config, key)
        if len(values) not in (1, channels):
            yield Fault(
                f"{key} = {list(values)}: {len(values)} entries for student.in_chans = {channels}. "
                f"Give {channels}, or one that holds for every channel.",
                (key, "student.in_chans"),
            )


def _normalisation(config: Config) -> Iterator[Fault]:
    mean, std = config.data.mean, config.data.std
    if not all(0 <= value <= 1 for value in mean):
        yield Fault(f"data.mean = {list(mean)}: must lie from 0 to 1, where white is 1.", ("data.mean",))
    if not all(0 < value < math.inf for value in std):
        yield Fault(f"data.std = {list(std)}: must be more than 0, where white is 1.", ("data.std",))


def _custom_width(config: Config) -> Iterator[Fault]:
    width, heads = config.student.embed_dim, config.student.num_heads
    if config.student.arch == "vit_custom" and width % heads:
        yield Fault(
            f"student.embed_dim = {width}: not a multiple of student.num_heads = {heads}. "
            f"Take {heads * max(1, width // heads)}, or another number of heads.",
            ("student.embed_dim", "student.num_heads"),
        )


def _same_layout(config: Config) -> Iterator[Fault]:
    """The teacher's average runs over what a process holds, so student and teacher must lie alike."""
    for part in ("backbone", "dino_head", "ibot_head"):
        keys = tuple(f"compute_precision.{side}.{part}.sharding_strategy" for side in ("student", "teacher"))
        student, teacher = (value_of(config, key) for key in keys)
        if LAYOUTS[student] != LAYOUTS[teacher]:
            yield Fault(
                f"{keys[1]} = {teacher}: lies over the processes in another way than the student's "
                f"({student}), and the teacher's average would have to gather both. Set both to {student}, or both to "
                f"{teacher}.",
                keys,
            )


def _probes(config: Config) -> Iterator[Fault]:
    key, chosen = "monitors.probes", config.monitors.probes
    if unknown := [name for name in chosen if name not in PROBES]:
        yield Fault(f"{key} = {list(chosen)}: there is no {' and no '.join(unknown)}. Take of {list(PROBES)}.", (key,))


def _loggers(config: Config) -> Iterator[Fault]:
    key, chosen = "logging.loggers", config.logging.loggers
    if unknown := [name for name in chosen if name not in LOGGERS]:
        yield Fault(f"{key} = {list(chosen)}: there is no {' and no '.join(unknown)}. Take of {list(LOGGERS)}.", (key,))
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        yield Fault(f"{key} = {list(chosen)}: {' and '.join(twice)} stands there more than once.", (key,))
    if chosen and not config.logging.project.strip():
        yield Fault("logging.project is empty: name the project that the run belongs to.", ("logging.project",))


def _monitor_size(config: Config) -> Iterator[Fault]:
    size, patch = config.monitors.size, config.student.patch_size
    if size % patch:
        multiples = [n for n in (size // patch * patch, (size // patch + 1) * patch) if n]
        yield Fault(
            f"monitors.size = {size}: not a multiple of student.patch_size = {patch}. "
            f"Take {' or '.join(map(str, multiples))}, or 0 for crops.global_crops_size.",
            ("monitors.size", "student.patch_size"),
        )


def _selection_by_monitor(config: Config) -> Iterator[Fault]:
    """A score that would never be there; whether the name is right is known when the labels are."""
    name, every = config.checkpoint.select_by, config.monitors.every_steps
    prefix = name.partition("/")[0]
    if prefix not in (*PROBES, "monitor") or "/" not in name:
        return
    keys = ("checkpoint.select_by", "monitors.every_steps", "monitors.dataset", "monitors.probes", "optim.total_steps")
    total = lengths(config.optim, config.teacher, train=config.train).total
    if not 0 < every <= total:
        told = "is off" if every == 0 else f"exceeds the {total} steps of the run"
        yield Fault(
            f"checkpoint.select_by = {name}: monitors.every_steps = {every} {told}, so there would be no such number. "
            f"Set monitors.every_steps from 1 to {total}.",
            keys,
        )
    elif prefix in PROBES and not (config.monitors.dataset and prefix in config.monitors.probes):
        yield Fault(
            f"checkpoint.select_by = {name}: that probe does not run. Name labelled pictures in monitors.dataset, and "
            f"{prefix} in monitors.probes.",
            keys,
        )


RULES: tuple[Callable[[Config], Iterator[Fault]], ...] = (
    _crop_sizes,
    _blur_kernel,
    _length,
    _phases,
    _head_warm_up,
    _losses,
    _koleo_alone,
    _masked_crops,
    _masked_patches,
    _channels,
    _normalisation,
    _custom_width,
    _same_layout,
    _probes,
    _loggers,
    _monitor_size,
    _selection_by_monitor,
)
