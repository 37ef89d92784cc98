"""`dinov2 eval finetune`: the whole backbone, LoRA, BitFit, or a head alone, trained on pictures.

In: words. Out: a result folder; what was learnt as safetensors; `epochs.csv`.
"""

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli.eval.floor import beside_outcomes
from dinov2.cli.eval.heads import add_head_options, balance_of
from dinov2.cli.eval.options import PROBE_FORMATTER, check_output, open_eval_data
from dinov2.cli.eval.training import (
    add_augmentation_options,
    add_lora_options,
    add_training_options,
    reporting,
    save_learnt,
    training_settings,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.distributed import World
    from dinov2.eval.examples import EvalData
    from dinov2.eval.probes.finetune_probe import FinetuneSettings

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
    add_lora_options(group)
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
    save_learnt(arguments, backbone=probe.backbone, tuned=final.backbone, head=final.head, mode=settings.mode)
    return code


def _settings(arguments: argparse.Namespace) -> "FinetuneSettings":
    from dinov2.eval.probes.finetune_probe import FinetuneSettings

    return FinetuneSettings(
        mode=arguments.mode,
        mean_patch=arguments.head == "cls+patches",
        batch_size=arguments.batch_size,
        policy=arguments.uncertain,
        balance=balance_of(arguments),
        precision=arguments.precision,
        workers=arguments.workers,
        **training_settings(arguments),
    )


def _backbone_lrs(arguments: argparse.Namespace) -> Sequence[float]:
    if arguments.mode == "frozen" and arguments.backbone_lrs:
        raise ConfigError("--backbone-lrs: with --mode frozen the backbone does not learn. Leave one of them out.")
    return arguments.backbone_lrs or BACKBONE_LRS[arguments.mode]


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
