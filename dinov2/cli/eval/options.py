"""Words that every probe takes, and what they open.

In: a parser, later its arguments. Out: options; `EvalData`, a `Backbone`, an output folder.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from dinov2.eval.backbones import Backbone
    from dinov2.eval.examples import EvalData

PROBE_FORMATTER = argparse.RawDescriptionHelpFormatter
BACKBONES = (
    "a run, one of its checkpoints or exports, a .safetensors or .pth of DINOv2, a Hugging Face folder or OWNER/NAME, "
    "an open_clip ViT folder or openclip-file:PATH, open_clip:, timm:, torchvision: or torchxrayvision:NAME, "
    "or random:ARCH for weights that learnt nothing"
)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Pictures, labels and splits."""
    group = parser.add_argument_group("pictures and labels")
    group.add_argument(
        "--dataset", "--manifest", dest="dataset", metavar="D", help="manifest, or Name:root=FOLDER of a public dataset"
    )
    for split in ("train", "val", "test"):
        group.add_argument(
            f"--{split}-dataset", metavar="D", help=f"where the pictures of {split} are, if not in --dataset"
        )
        group.add_argument(
            f"--{split}-split", metavar="NAME", help=f"value of the column 'split' that is {split} (default: {split})"
        )
    group.add_argument(
        "--labels", nargs="+", metavar="COLUMN", default=[], help="label columns: several, or one with class names"
    )
    group.add_argument("--masks", metavar="COLUMN", help="column with the mask's file, for segment")
    group.add_argument("--classes", nargs="+", metavar="NAME", default=[], help="names of classes, in their order")
    group.add_argument("--views", nargs="+", metavar="VIEW", default=[], help="use pictures of these views only")
    group.add_argument(
        "--groups", nargs="+", metavar="COLUMN", default=[], help="columns by which scores are also told, e.g. sex view"
    )


def add_backbone_options(parser: argparse.ArgumentParser, *, fit: str = "crop", batch_size: int = 32) -> None:
    """The backbone, and how pictures are put to it; `fit` and `batch_size` are what is usual."""
    group = parser.add_argument_group("backbone")
    group.add_argument("--backbone", required=True, metavar="B", help=BACKBONES)
    group.add_argument("--size", type=int, metavar="PX", help="side of the pictures (default: the backbone's own)")
    group.add_argument(
        "--fit",
        choices=["crop", "letterbox", "squash"],
        default=fit,
        help=f"how a picture becomes square: short side to size and the middle, bars, or distorted (default: {fit})",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    group.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of the backbone")
    group.add_argument(
        "--batch-size", type=int, default=batch_size, metavar="N", help=f"pictures at once (default: {batch_size})"
    )
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read pictures (default: 2)")


def add_input_options(parser: argparse.ArgumentParser, *, fit: str = "crop", batch_size: int = 32) -> None:
    """The backbone and the pictures."""
    add_backbone_options(parser, fit=fit, batch_size=batch_size)
    add_data_options(parser)


def add_refit_option(group: "argparse._ArgumentGroup") -> None:
    """Whether the last fit is on train alone."""
    group.add_argument(
        "--no-refit", action="store_true", help="test the fit on train, do not fit again on train + validation"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where results go, and how sure they are."""
    group = parser.add_argument_group("results")
    group.add_argument("--output-dir", required=True, type=Path, metavar="DIR", help="for tables, curves, predictions")
    group.add_argument("--overwrite", action="store_true", help="replace results that are there")
    group.add_argument("--features-dir", type=Path, metavar="DIR", help="where features are kept and found again")
    group.add_argument("--seed", type=int, default=0, help="of draws and of the bootstrap (default: 0)")
    group.add_argument("--draws", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")


def check_output(arguments: argparse.Namespace) -> Path:
    """The output folder, before anything is computed.  Raises ConfigError where results are there already."""
    folder: Path = arguments.output_dir
    if (folder / "result.json").exists() and not arguments.overwrite:
        raise ConfigError(f"{folder}: holds a result already. Give another --output-dir, or --overwrite.")
    return folder


def picture_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """How pictures were put to the backbone, as a result says it."""
    return {
        "size_px": arguments.size or "the backbone's own",
        "fit": arguments.fit,
        "precision": arguments.precision,
    }


def open_eval_data(arguments: argparse.Namespace, *, segmentation: bool = False) -> "EvalData":
    """Train, val and test.  Raises ManifestError, ConfigError."""
    from dinov2.eval.datasets import open_data

    return open_data(
        arguments.dataset,
        train=arguments.train_dataset,
        val=arguments.val_dataset,
        test=arguments.test_dataset,
        split_names={name: getattr(arguments, f"{name}_split") or name for name in ("train", "val", "test")},
        labels=arguments.labels,
        masks=arguments.masks,
        classes=arguments.classes,
        views=arguments.views,
        segmentation=segmentation,
    )


def device_of(arguments: argparse.Namespace) -> "torch.device":
    """Of --device; auto is the GPU where there is one.  Raises ConfigError for one that is not there.

    Where it is the CPU, the process keeps freed memory from here on.
    """
    import torch

    from dinov2.distributed import keep_freed_memory

    name = arguments.device
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: there is no such device. Give auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: {torch.cuda.device_count()} GPUs are visible here. Give --device cpu.")
    keep_freed_memory(device)
    return device


def open_the_backbone(arguments: argparse.Namespace) -> "tuple[Backbone, torch.device]":
    """The backbone on its device, in evaluation mode.  Raises WeightsError, ConfigError."""
    from dinov2.eval.backbones import open_backbone

    device = device_of(arguments)
    return open_backbone(arguments.backbone).to(device), device
