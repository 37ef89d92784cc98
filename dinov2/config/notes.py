"""What should be said once about a configuration that can be run.

In: a `Config` and the keys that somebody gave. Out: messages, on a given key that is not read or on an unusual choice.
"""

from collections.abc import Callable, Iterator, Mapping

from dinov2.config.keys import leaves, value_of
from dinov2.config.lengths import lengths
from dinov2.config.schema import Config

# Keys of the public tree that nothing here needs, with what takes their place.
IGNORED: Mapping[str, str] = {
    "MODEL.WEIGHTS": "student.pretrained_weights names weights to start from",
    "train.output_dir": "--output-dir decides",
    "train.saveckp_freq": "checkpoint.every_steps decides",
    "train.cache_dataset": "the manifest is always in memory; data.cache keeps decoded pictures",
    "student.block_chunks": "blocks always carry flat names",
}


def notes(config: Config, *, given: frozenset[str], accepted: Mapping[str, str]) -> tuple[str, ...]:
    """Every message, the one about keys of older files first.

    `given` are the keys that were set; `accepted` are keys of older files that the schema does not have, with a reason.
    A key that was set to its default needs no word, unless nothing here ever reads it.
    """
    changed = frozenset(key for key in leaves(Config) if key in given and value_of(config, key) != DEFAULTS[key])
    return (
        *_ignored(config, given, accepted),
        *(message for note in NOTES for message in note(config, changed)),
    )


DEFAULTS = {key: value_of(Config(), key) for key in leaves(Config)}


def _ignored(config: Config, given: frozenset[str], accepted: Mapping[str, str]) -> Iterator[str]:
    """One message that names every key which was written and is not needed, or none."""
    named = [f"{key} ({reason})" for key, reason in IGNORED.items() if key in given]
    if "optim.lr" in given and config.optim.lr == 0:
        named.append("optim.lr = 0 (the peak follows from optim.base_lr and optim.scaling_rule)")
    named += [f"{key} ({reason})" for key, reason in accepted.items()]
    if named:
        yield f"accepted from older files and not used: {'; '.join(named)}."


def _custom(config: Config, changed: frozenset[str]) -> Iterator[str]:
    unused = sorted(changed & {f"student.{name}" for name in ("embed_dim", "depth", "num_heads", "mlp_ratio")})
    if unused and config.student.arch != "vit_custom":
        yield f"{', '.join(unused)}: not read, because student.arch = {config.student.arch}; vit_custom reads them."


def _ibot_head(config: Config, changed: frozenset[str]) -> Iterator[str]:
    sizes = [f"head_{name}" for name in ("n_prototypes", "bottleneck_dim", "nlayers", "hidden_dim")]
    differing = [s for s in sizes if getattr(config.ibot, s) != getattr(config.dino, s)]
    unused = [f"ibot.{s}" for s in differing if f"ibot.{s}" in changed]
    if unused and not config.ibot.separate_head:
        yield f"{', '.join(unused)}: not read, because ibot.separate_head is false; dino.head_* describes the one head."


def _epochs_and_steps(config: Config, changed: frozenset[str]) -> Iterator[str]:
    names = ("optim.warmup", "optim.freeze_last_layer", "teacher.warmup_teacher_temp")
    pairs = {"optim.epochs": "optim.total_steps"} | {f"{name}_epochs": f"{name}_steps" for name in names}
    for epochs, steps in pairs.items():
        if epochs in changed and value_of(config, steps) is not None:
            yield f"{epochs}: not read, because {steps} = {value_of(config, steps)} is given."


def _peak(config: Config, changed: frozenset[str]) -> Iterator[str]:
    unused = sorted(changed & {"optim.base_lr", "optim.scaling_rule"})
    if config.optim.lr > 0 and unused:
        yield f"{', '.join(unused)}: not read, because optim.lr = {config.optim.lr} is the peak learning rate itself."


def _teacher_temperature(config: Config, _: frozenset[str]) -> Iterator[str]:
    n, teacher = lengths(config.optim, config.teacher, train=config.train), config.teacher
    if n.warmup_teacher_temp > n.total and teacher.warmup_teacher_temp != teacher.teacher_temp:
        yield (
            f"teacher.teacher_temp = {teacher.teacher_temp} is never reached: its warm-up takes "
            f"{n.warmup_teacher_temp} steps and the run {n.total}; teacher.warmup_teacher_temp_steps sets it."
        )


def _crop_order(config: Config, _: frozenset[str]) -> Iterator[str]:
    crops = config.crops
    if crops.local_crops_number and crops.local_crops_size > crops.global_crops_size:
        sizes = f"{crops.local_crops_size} is larger than crops.global_crops_size = {crops.global_crops_size}"
        yield f"crops.local_crops_size = {sizes}."


def _part_formats(config: Config, changed: frozenset[str]) -> Iterator[str]:
    formats = sorted(key for key in changed if key.endswith(".param_dtype"))
    if formats and config.runtime.precision != "auto":
        yield f"{', '.join(formats)}: not read, because runtime.precision = {config.runtime.precision} holds for all."


def _global_batch(config: Config, changed: frozenset[str]) -> Iterator[str]:
    if config.train.global_batch_size and "train.batch_size_per_gpu" in changed:
        yield f"train.batch_size_per_gpu: not read, because train.global_batch_size = {config.train.global_batch_size}."


def _selection(config: Config, changed: frozenset[str]) -> Iterator[str]:
    unused = sorted(changed & {"checkpoint.keep_best", "checkpoint.select_mode"})
    if unused and not config.checkpoint.select_by:
        yield f"{', '.join(unused)}: not read, because checkpoint.select_by names no score."


def _monitors(config: Config, changed: frozenset[str]) -> Iterator[str]:
    section = sorted(key for key in changed if key.startswith("monitors.") and key != "monitors.every_steps")
    of_labels = sorted(changed & {f"monitors.{name}" for name in ("labels", "train_split", "val_split", "probes")})
    if section and config.monitors.every_steps == 0:
        yield f"{', '.join(section)}: not read, because monitors.every_steps = 0."
    elif of_labels and not config.monitors.dataset:
        yield f"{', '.join(of_labels)}: not read, because monitors.dataset names no labelled pictures."


def _half_on_cpu(config: Config, _: frozenset[str]) -> Iterator[str]:
    if config.runtime.precision == "fp16" and config.runtime.device == "cpu":
        yield "runtime.precision = fp16 is slow on a CPU; runtime.precision=auto picks what suits the device."


def _head_warm_up(config: Config, changed: frozenset[str]) -> Iterator[str]:
    start = config.init_from
    still = lengths(config.optim, config.teacher, train=config.train).freeze_last_layer
    if not start.freeze_backbone_steps:
        if "init_from.head_lr_factor" in changed:
            yield "init_from.head_lr_factor: not read, because init_from.freeze_backbone_steps = 0."
    elif still >= start.freeze_backbone_steps:
        yield (
            f"init_from.freeze_backbone_steps = {start.freeze_backbone_steps}: the prototypes stand still for as long "
            f"({still} steps), so the heads' other layers alone learn; optim.freeze_last_layer_steps sets it."
        )


def _start_not_read(config: Config, changed: frozenset[str]) -> Iterator[str]:
    start = config.init_from
    if "init_from.revision" in changed and not any(
        "/" in name for name in (config.student.pretrained_weights, start.dino_head, start.ibot_head)
    ):
        yield f"init_from.revision = {start.revision}: not read, because no weights are named by a hub id OWNER/NAME."


def _register_weights(config: Config, _: frozenset[str]) -> Iterator[str]:
    student = config.student
    if student.num_register_tokens and student.pretrained_weights and student.interpolate_offset:
        yield (
            f"student.interpolate_offset = {student.interpolate_offset}: the public weights with register tokens "
            "were trained with student.interpolate_offset=0 and student.interpolate_antialias=true."
        )


NOTES: tuple[Callable[[Config, frozenset[str]], Iterator[str]], ...] = (
    _custom,
    _ibot_head,
    _epochs_and_steps,
    _peak,
    _teacher_temperature,
    _crop_order,
    _part_formats,
    _global_batch,
    _selection,
    _monitors,
    _half_on_cpu,
    _head_warm_up,
    _start_not_read,
    _register_weights,
)
