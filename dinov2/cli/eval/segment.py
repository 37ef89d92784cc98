"""`dinov2 eval segment`: a decoder on the patch tokens.

In: words. Out: a result folder; the decoder as safetensors; `films.png` with outlines.
"""

import argparse
import os
from typing import TYPE_CHECKING

from dinov2.cli.console import stderr
from dinov2.cli.eval.options import (
    PROBE_FORMATTER,
    add_input_options,
    add_output_options,
    add_refit_option,
    check_output,
    open_eval_data,
    open_the_backbone,
)
from dinov2.cli.eval.training import (
    add_augmentation_options,
    add_lora_options,
    add_training_options,
    reporting,
    save_learnt,
    training_settings,
)
from dinov2.errors import ConfigError, LaunchError

if TYPE_CHECKING:
    from dinov2.eval.examples import EvalData
    from dinov2.eval.probes.segment_probe import Segmenter, SegmentProbe, SegmentSettings
    from dinov2.eval.probes.segment_tokens import TokenReader

DECODERS = ("linear", "unet", "upernet")
LRS = [1e-3, 3e-3, 1e-2, 3e-2]
BACKBONE_LRS = {"none": [], "full": [1e-5], "lora": [1e-3]}
SMALLEST_WIDTH = 16
SHEET_NAME = "films.png"
EXAMPLES = """examples:
  dinov2 eval segment --backbone RUN/exports/400 --dataset films.csv --masks mask --classes "left lung" "right lung" \\
    --output-dir scores/lungs
  dinov2 eval segment --backbone RUN/exports/400 --dataset MC:root=/data/montgomery --decoder unet --size 448 \\
    --output-dir scores/montgomery

Pictures become square by bars (--fit letterbox) unless told otherwise: a crop would count as background."""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "segment",
        help="a decoder on the patch tokens",
        description="Decoders on patch tokens, all learning rates in one pass; the best mean Dice on validation is "
        "fitted again on train + validation.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_input_options(parser, fit="letterbox", batch_size=8)
    group = parser.add_argument_group("decoder")
    group.add_argument(
        "--decoder",
        choices=DECODERS,
        default="linear",
        help="a linear map of each token; transposed convolutions with skips from the last four blocks; pyramid "
        "pooling and fusion of four blocks (default: linear)",
    )
    group.add_argument("--width", type=int, default=128, metavar="N", help="channels inside (default: 128)")
    group.add_argument("--loss", choices=["dice", "dice+ce"], default="dice+ce", help="(default: dice+ce)")
    group.add_argument("--lrs", type=float, nargs="+", metavar="X", default=LRS, help="(default: 1e-3 3e-3 1e-2 3e-2)")
    group.add_argument(
        "--tokens",
        choices=["auto", "ram", "disk", "none"],
        default="auto",
        help="of a frozen backbone: computed once and kept in memory or in a file, or in every epoch; auto is memory "
        "up to --tokens-gb (default: auto)",
    )
    group.add_argument("--tokens-gb", type=float, default=4.0, metavar="GB", help="(default: 4)")
    group.add_argument(
        "--compare-at", type=int, metavar="PX", help="compare masks at a square of so many pixels (default: own size)"
    )
    group = parser.add_argument_group("backbone")
    group.add_argument("--tune", choices=["none", "full", "lora"], default="none", help="(default: none, frozen)")
    group.add_argument(
        "--backbone-lrs", type=float, nargs="+", metavar="X", help="(default: 1e-5 with full, 1e-3 with lora)"
    )
    add_lora_options(group)
    add_training_options(parser, epochs=30, weight_decay=1e-4)
    add_augmentation_options(parser, default="none")
    group = parser.add_argument_group("choosing")
    add_refit_option(group)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, chooses, trains again, tests, writes and draws."""
    from dinov2.cli.eval.ending import finish
    from dinov2.eval.probes.segment import segment

    folder = check_output(arguments)
    if _num_processes() > 1:
        raise LaunchError("dinov2 eval segment runs in one process. Start it without torchrun.")
    settings = _settings(arguments)
    data = open_eval_data(arguments, segmentation=True)
    reader = _reader(arguments)
    with reporting() as progress:
        outcome, probe, final = segment(
            data,
            reader,
            settings=settings,
            lrs=arguments.lrs,
            backbone_lrs=arguments.backbone_lrs or BACKBONE_LRS[arguments.tune],
            keep=arguments.tokens,
            keep_limit_gb=arguments.tokens_gb,
            folder=arguments.features_dir or folder,
            dataset=data.train.name,
            groups=arguments.groups,
            refit=not arguments.no_refit,
            progress=progress,
        )
    code = finish(outcome, arguments)
    _draw(arguments, data=data, probe=probe, final=final)
    save_learnt(arguments, backbone=probe.reader.backbone, tuned=final.backbone, head=final.decoder, mode=probe.mode)
    return code


def _draw(arguments: argparse.Namespace, *, data: "EvalData", probe: "SegmentProbe", final: "Segmenter") -> None:
    """Outlines on films that the final decoder was not fitted on, if there are any."""
    from dinov2.eval.probes.segment_sheet import write_sheet
    from dinov2.eval.probes.segment_tokens import TokenSplit

    shown = data.test or data.val
    if shown is None:
        return
    path = arguments.output_dir / SHEET_NAME
    write_sheet(probe, final, TokenSplit(examples=shown), path=path)
    stderr.print(f"outlines: {path}", markup=False, soft_wrap=True)


def _reader(arguments: argparse.Namespace) -> "TokenReader":
    from dinov2.eval.pictures import preparation_for
    from dinov2.eval.probes.decoders import blocks_of
    from dinov2.eval.probes.segment_tokens import TokenReader

    backbone, device = open_the_backbone(arguments)
    reader = TokenReader(
        backbone=backbone,
        blocks=blocks_of(arguments.decoder, depth=backbone.traits.depth),
        preparation=preparation_for(backbone.traits, size=arguments.size, fit=arguments.fit),
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        precision=arguments.precision,
        device=device,
    )
    reader.check()
    return reader


def _settings(arguments: argparse.Namespace) -> "SegmentSettings":
    from dinov2.eval.probes.segment_probe import SegmentSettings

    training = training_settings(arguments)
    if arguments.width < SMALLEST_WIDTH or arguments.width % SMALLEST_WIDTH:
        raise ConfigError(f"--width {arguments.width}: give a multiple of {SMALLEST_WIDTH}.")
    if arguments.tune == "none" and arguments.backbone_lrs:
        raise ConfigError(
            "--backbone-lrs: a frozen backbone does not learn. Give --tune full or lora, or leave it out."
        )
    return SegmentSettings(
        decoder=arguments.decoder,
        width=arguments.width,
        loss=arguments.loss,
        tune=arguments.tune,
        compare_at=arguments.compare_at,
        **training,
    )


def _num_processes() -> int:
    from dinov2.distributed import read_world

    return read_world(os.environ, device="cpu").size
