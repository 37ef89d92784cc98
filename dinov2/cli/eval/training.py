"""What the commands that train on pictures have in common: options, settings, a bar, and what was learnt as files.

In: a parser, later its arguments. Out: options; settings; safetensors in the output folder; progress on standard error.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import progress_bar, stderr
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from dinov2.eval.backbones import Backbone
    from dinov2.eval.probes.adapters import Mode
    from dinov2.eval.probes.finetune_augment import Augmentation
    from dinov2.eval.probes.finetune_steps import Progress


def add_training_options(parser: argparse.ArgumentParser, *, epochs: int, weight_decay: float) -> None:
    """The optimiser and its schedule."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=epochs, metavar="N", help=f"over the split (default: {epochs})")
    group.add_argument("--warmup", type=float, default=0.1, metavar="X", help="share of the steps (default: 0.1)")
    group.add_argument(
        "--weight-decay", type=float, default=weight_decay, metavar="X", help=f"(default: {weight_decay})"
    )
    group.add_argument(
        "--layer-decay",
        type=float,
        default=0.75,
        metavar="X",
        help="factor of the backbone's rate per layer from the output down; 1: none (default: 0.75)",
    )
    group.add_argument("--clip", type=float, default=1.0, metavar="X", help="norm of gradients (default: 1)")


def add_lora_options(group: "argparse._ArgumentGroup") -> None:
    """The size of low-rank additions."""
    group.add_argument("--rank", type=int, default=48, metavar="N", help="of LoRA (default: 48)")
    group.add_argument("--alpha", type=float, default=16, metavar="X", help="of LoRA, scale alpha/rank (default: 16)")


def add_augmentation_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """How training pictures are changed."""
    group = parser.add_argument_group("augmentation of training pictures")
    group.add_argument(
        "--augment",
        choices=["crop", "none"],
        default=default,
        help=f"random crops of 0.75 to 1 of the area, turned a little; or none (default: {default})",
    )
    group.add_argument("--rotation", type=float, default=5, metavar="DEGREES", help="to either side (default: 5)")
    group.add_argument(
        "--flip", action="store_true", help="mirror half of the pictures; off, since sides matter on chest films"
    )


def training_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `TrainingSettings` takes.  Raises ConfigError for numbers that train nothing."""
    _check_training(arguments)
    return {
        "rank": arguments.rank,
        "alpha": arguments.alpha,
        "epochs": arguments.epochs,
        "warmup_share": arguments.warmup,
        "weight_decay": arguments.weight_decay,
        "layer_decay": arguments.layer_decay,
        "clip_norm": arguments.clip,
        "augmentation": _augmentation_of(arguments),
        "seed": arguments.seed,
    }


@contextmanager
def reporting(*, quiet: bool = False) -> Iterator["Progress"]:
    """A bar for what is being done now; and a line of text when an epoch says something new."""
    said: dict[str, str] = {}
    with progress_bar() as bar:
        lines: dict[str, Any] = {}

        def progress(what: str, done: int, total: int, status: str) -> None:
            if quiet:
                return
            if what not in lines:
                for finished in [name for name in lines if bar.tasks[bar.task_ids.index(lines[name])].finished]:
                    bar.remove_task(lines.pop(finished))  # or a log file would tell it every half minute
                lines[what] = bar.add_task(what, total=total)
            bar.update(lines[what], completed=done, total=total, status=status)
            if status and said.get(what) != status:
                said[what] = status
                bar.console.print(f"{what}; {status}", markup=False, soft_wrap=True)

        yield progress


def save_learnt(
    arguments: argparse.Namespace,
    *,
    backbone: "Backbone",
    tuned: "Mapping[str, Tensor]",
    head: "Mapping[str, Tensor]",
    mode: "Mode",
) -> None:
    """Writes what a fit learnt into the output folder, and says where."""
    from dinov2.eval.probes.finetune_saving import save_tuned

    written = save_tuned(
        arguments.output_dir,
        backbone=backbone,
        tuned=tuned,
        head=head,
        mode=mode,
        rank=arguments.rank,
        alpha=arguments.alpha,
    )
    stderr.print(f"learnt: {', '.join(str(path) for path in written)}", markup=False, soft_wrap=True)


def _check_training(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for numbers that train nothing."""
    if arguments.epochs < 1 or arguments.batch_size < 1 or arguments.rank < 1:
        raise ConfigError("--epochs, --batch-size and --rank: give 1 or more.")
    if not 0 <= arguments.warmup < 1 or not 0 < arguments.layer_decay <= 1 or arguments.clip <= 0:
        raise ConfigError("--warmup is in 0 .. 1 (without 1), --layer-decay in 0 .. 1 (without 0), --clip above 0.")


def _augmentation_of(arguments: argparse.Namespace) -> "Augmentation | None":
    """What is asked for; None for no change.  Raises ConfigError where mirroring alone is asked for."""
    from dinov2.eval.probes.finetune_augment import Augmentation

    if arguments.augment == "none":
        if arguments.flip:
            raise ConfigError("--flip: is part of the augmentation; give --augment crop too.")
        return None
    return Augmentation(rotation_degrees=arguments.rotation, flip=arguments.flip)
