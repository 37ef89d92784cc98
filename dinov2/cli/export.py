"""`dinov2 export`: a backbone out of a checkpoint, or from anywhere, into a format that others load."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.formats.source import Source, Written

FORMATS = ("dinov2", "transformers", "onnx", "timm")
DTYPES = ("float32", "float16", "bfloat16")
EXAMPLES = """formats:
  dinov2        backbone.safetensors, heads and centres under DINOv2's public names, backbone_card.json
  transformers  model.safetensors, config.json, preprocessor_config.json, model card; needs transformers
  onnx          backbone.onnx with dynamic batch and size; needs onnx, onnxscript, onnxruntime
  timm          model.safetensors under timm's names, config.json; needs timm
Every file is read back by the library it is for and compared before the folder gets its name.

examples:
  dinov2 export --checkpoint runs/first --output-dir exported
  dinov2 export --checkpoint runs/first/checkpoints/60 --output-dir hf --format transformers --licence mit
  dinov2 export --checkpoint microsoft/rad-dino --output-dir raddino --format dinov2 onnx --include backbone"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "export",
        help=COMMANDS["export"],
        description="Write a backbone for dinov2, transformers, ONNX or timm.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME",
        help="a run (its newest checkpoint), RUN/checkpoints/N, an exported folder, a file of weights, a Hugging Face "
        "folder or hub id OWNER/NAME",
    )
    parser.add_argument(
        "--output-dir",
        required=True,
        type=Path,
        metavar="D",
        help="the folder to write; of several formats D/dinov2, D/onnx ...",
    )
    parser.add_argument(
        "--format", nargs="+", choices=FORMATS, default=["dinov2"], metavar="FORMAT", help="default: dinov2"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights (default: float32)")
    parser.add_argument(
        "--which", choices=("teacher", "student"), default="teacher", help="network of a checkpoint (default: teacher)"
    )
    parser.add_argument(
        "--include",
        choices=("heads", "backbone"),
        help="heads: the projection heads too; backbone: it alone (default: heads for dinov2, backbone for the others)",
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a hub id")
    parser.add_argument("--licence", default="", metavar="NAME", help="of the weights, for the model card: mit, ...")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens the source, then writes and checks each format."""
    from dinov2.formats.sources import open_source
    from dinov2.formats.writers import WRITERS, check_new

    folders = _folders(arguments)
    for folder in folders.values():
        check_new(folder)
    with progress_bar() as bar:
        line = bar.add_task("export", total=1 + len(folders), status=f"reading {arguments.checkpoint}")
        source = open_source(
            arguments.checkpoint,
            which=arguments.which,
            heads=any(_with_heads(arguments, name) for name in folders),
            revision=arguments.revision,
        )
        _check_heads(arguments, source)
        for name, folder in folders.items():
            bar.advance(line)
            bar.update(line, status=f"writing and reading back {name}")
            written = WRITERS[name](
                source,
                folder,
                dtype=arguments.dtype,
                licence=arguments.licence,
                with_heads=_with_heads(arguments, name),
            )
            _tell(written, name=name)
        bar.update(line, advance=1, status="done")
    return 0


def _folders(arguments: argparse.Namespace) -> dict[str, Path]:
    """Format -> its folder."""
    formats = list(dict.fromkeys(arguments.format))
    alone = len(formats) == 1
    return {name: arguments.output_dir if alone else arguments.output_dir / name for name in formats}


def _with_heads(arguments: argparse.Namespace, name: str) -> bool:
    if arguments.include is None:
        return name == "dinov2"
    return bool(arguments.include == "heads")


def _check_heads(arguments: argparse.Namespace, source: "Source") -> None:
    if arguments.include == "heads" and not source.heads:
        raise ConfigError(f"--include heads: {arguments.checkpoint} holds no projection heads. Leave out --include.")


def _tell(written: "Written", *, name: str) -> None:
    stdout.print(f"{name}:", markup=False)
    for file in written.files:
        stdout.print(f"  {file}  {decimal(file.stat().st_size)}", markup=False)
    for check in written.checks:
        stdout.print(f"  {check}", markup=False)
    stdout.print(f"  next: {written.next_step}", markup=False)
