"""`dinov2 eval finetune`: the whole backbone, LoRA, BitFit, or a head alone, trained on pictures.

In: words. Out: a result folder; what was learnt as safetensors; `epochs.csv`.
"""

import argparse
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import progress_bar, stderr
from dinov2.cli.eval.floor import beside_outcomes
from dinov2.cli.eval.heads import add_head_options
from dinov2.cli.eval.options import PROBE_FORMATTER, check_output, open_eval_data
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.distributed import World
    from dinov2.eval.examples import EvalData
    from dinov2.eval.probes.finetune import FinetuneProbe, FinetuneSettings, Tuned
    from dinov2.eval.probes.finetune_augment import Augmentation
    from dinov2.eval.probes.finetune_steps import Progress

MODES = ("full", "lora", "bitfit", "frozen")
BACKBONE_LRS = {"full": [1e-5, 1e-6, 1e-7], "lora": [1e-4, 1e-3], "bitfit": [1e-4, 1e-3], "frozen": [0.0]}
LONGEST_WAIT_SECONDS = 24 * 3600.0
EXAMPLES = """examples:
  dinov2 eval finetune --backbone RUN/exports/400 --dataset films.csv --labels Effusion Mass --output-dir scores/tuned
  torchrun --nproc-per-node 4 -m dinov2 eval finetune --mode lora --backbone RUN --precision bf16 \\
    --dataset CheXpert:root=/data/chexpert --batch-size 128 --output-dir scores/lora"""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "finetune",
        help="the whole backbone, or adapters (LoRA, BitFit)",
        description="Train on pictures: AdamW, warm-up and cosine, layer-wise decay. Every fit starts from the weights "
        "that were given; learning rates are chosen on validation; the last fit is on train + validation.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_head_options(parser)
    group = parser.add_argument_group("what learns")
    group.add_argument(
        "--mode",
        choices=MODES,
        default="full",
        help="everything; low-rank additions to its matrices; its biases; the head alone (default: full)",
    )
    group.add_argument("--rank", type=int, default=48, metavar="N", help="of LoRA (default: 48)")
    group.add_argument("--alpha", type=float, default=16, metavar="X", help="of LoRA, scale alpha/rank (default: 16)")
    group.add_argument(
        "--head", choices=["cls", "cls+patches"], default="cls+patches", help="what it sees (default: cls+patches)"
    )
    add_training_options(parser, epochs=10, weight_decay=0.05)
    group = parser.add_argument_group("learning rates, of which the best pair is chosen")
    group.add_argument(
        "--backbone-lrs",
        type=float,
        nargs="+",
        metavar="X",
        help="(default: 1e-5 1e-6 1e-7 with full; 1e-4 1e-3 with lora and bitfit)",
    )
    group.add_argument("--head-lrs", type=float, nargs="+", metavar="X", default=[1e-3], help="(default: 1e-3)")
    add_augmentation_options(parser, default="crop")
    parser.set_defaults(run=run)


def add_training_options(parser: argparse.ArgumentParser, *, epochs: int, weight_decay: float) -> None:
    """What finetune and segment have in common."""
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


def run(arguments: argparse.Namespace) -> int:
    """Trains, chooses, trains again, tests, writes.  Started by torchrun, the first process writes."""
    from dinov2.distributed import open_world
    from dinov2.eval.probes.judging import metric_of

    check_output(arguments)
    metric_of(arguments.metric)
    data = open_eval_data(arguments)
    device = arguments.device.partition(":")[0]
    with open_world(device=device, timeout_seconds=LONGEST_WAIT_SECONDS) as world:
        return _run(arguments, data=data, world=_placed(world, arguments))


def _run(arguments: argparse.Namespace, *, data: "EvalData", world: "World") -> int:
    from dinov2.cli.eval.ending import finish
    from dinov2.eval.backbones import open_backbone
    from dinov2.eval.pictures import preparation_for
    from dinov2.eval.probes.finetune import finetune

    backbone = open_backbone(arguments.backbone)
    settings = _settings(arguments)
    with reporting(quiet=not world.is_main) as progress:
        outcome, probe, final = finetune(
            data,
            backbone,
            settings=settings,
            backbone_lrs=_backbone_lrs(arguments),
            head_lrs=arguments.head_lrs,
            preparation=preparation_for(backbone.traits, size=arguments.size, fit=arguments.fit),
            metric=arguments.metric,
            dataset=data.train.name,
            world=world,
            groups=arguments.groups,
            refit=not arguments.no_refit,
            progress=progress,
        )
    if not world.is_main:
        return 0
    code = finish(outcome, arguments, beside=beside_outcomes(arguments, data=data))
    write_epochs(arguments.output_dir / "epochs.csv", probe.epochs)
    _save(arguments.output_dir, probe=probe, settings=settings, final=final)
    return code


def _save(folder: Path, *, probe: "FinetuneProbe", settings: "FinetuneSettings", final: "Tuned") -> None:
    from dinov2.eval.probes.finetune_saving import save_tuned

    written = save_tuned(
        folder,
        backbone=probe.backbone,
        tuned=final.backbone,
        head=final.head,
        mode=settings.mode,
        rank=settings.rank,
        alpha=settings.alpha,
    )
    stderr.print(f"learnt: {', '.join(str(path) for path in written)}", markup=False, soft_wrap=True)


def _settings(arguments: argparse.Namespace) -> "FinetuneSettings":
    from dinov2.eval.probes.finetune import FinetuneSettings

    check_training(arguments)
    return FinetuneSettings(
        mode=arguments.mode,
        rank=arguments.rank,
        alpha=arguments.alpha,
        mean_patch=arguments.head == "cls+patches",
        epochs=arguments.epochs,
        warmup_share=arguments.warmup,
        batch_size=arguments.batch_size,
        weight_decay=arguments.weight_decay,
        layer_decay=arguments.layer_decay,
        clip_norm=arguments.clip,
        augmentation=augmentation_of(arguments),
        policy=arguments.uncertain,
        balance="balanced" if arguments.balance else "none",
        precision=arguments.precision,
        workers=arguments.workers,
        seed=arguments.seed,
    )


def _backbone_lrs(arguments: argparse.Namespace) -> Sequence[float]:
    if arguments.mode == "frozen" and arguments.backbone_lrs:
        raise ConfigError("--backbone-lrs: with --mode frozen the backbone does not learn. Leave one of them out.")
    return arguments.backbone_lrs or BACKBONE_LRS[arguments.mode]


def check_training(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for numbers that train nothing."""
    if arguments.epochs < 1 or arguments.batch_size < 1 or arguments.rank < 1:
        raise ConfigError("--epochs, --batch-size and --rank: give 1 or more.")
    if not 0 <= arguments.warmup < 1 or not 0 < arguments.layer_decay <= 1 or arguments.clip <= 0:
        raise ConfigError("--warmup is in 0 .. 1 (without 1), --layer-decay in 0 .. 1 (without 0), --clip above 0.")


def augmentation_of(arguments: argparse.Namespace) -> "Augmentation | None":
    """What the options ask for; None for no change.  Raises ConfigError where mirroring alone is asked for."""
    from dinov2.eval.probes.finetune_augment import Augmentation

    if arguments.augment == "none":
        if arguments.flip:
            raise ConfigError("--flip: is part of the augmentation; give --augment crop too.")
        return None
    return Augmentation(rotation_degrees=arguments.rotation, flip=arguments.flip)


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


def write_epochs(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Loss and validation score of every epoch of every fit."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(epochs[0]))
        table.writeheader()
        table.writerows(epochs)


def _placed(world: "World", arguments: argparse.Namespace) -> "World":
    """With one process the device is the one that was asked for, with its number."""
    import dataclasses

    import torch

    if world.size > 1 or ":" not in arguments.device or "WORLD_SIZE" in os.environ:
        return world
    return dataclasses.replace(world, device=torch.device(arguments.device))
