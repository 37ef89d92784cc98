"""`dinov2 import`: weights of DINOv2 from any file, folder or hub into a folder of ours."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table

from dinov2.cli import COMMANDS
from dinov2.cli.console import print_table, progress_bar, stdout
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.formats.importing import Imported

ARCHITECTURES = ("vit_small", "vit_base", "vit_large", "vit_giant2", "vit_custom")
STAGES = 3  # reading, sums, writing
EXAMPLES = """sources:
  a .pth or .safetensors: a released backbone, a full dump of teacher and student, names of Hugging Face or timm
  a folder: of `dinov2 export`, of Hugging Face (in one file or several), RAD-DINO's with its head beside, timm's,
    or of the public trainer with a file per rank (model_0000999.rank_0.pth ...; its config.yaml beside them)
  a hub id: OWNER/NAME, from the Hugging Face cache where it lies there

examples:
  dinov2 import --weights dinov2_vitb14_pretrain.pth --output-dir start
  dinov2 import --weights microsoft/rad-dino --output-dir raddino --in-chans 1 --registers 4
  dinov2 import --weights runs/public/model_0099999.rank_0.pth --which student --output-dir student
  dinov2 import --weights timm/vit_base_patch16_dinov3.lvd1689m --allow-missing pos_embed --output-dir dinov3"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "import",
        help=COMMANDS["import"],
        description="Write backbone.safetensors, the heads and centres that are there, and backbone_card.json; say "
        "what was used, resized, missing and left over. What cannot be explained is an error, unless it is named.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", required=True, metavar="NAME", help="a file, a folder or a hub id OWNER/NAME")
    parser.add_argument("--output-dir", required=True, type=Path, metavar="D", help="the folder to write")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a hub id")
    parser.add_argument("--arch", choices=ARCHITECTURES, metavar="ARCH", help="what it must be: vit_base, ...")
    parser.add_argument(
        "--which", choices=("teacher", "student"), default="teacher", help="of a source with both (default: teacher)"
    )
    parser.add_argument("--allow-missing", nargs="+", default=[], metavar="GLOB", help="names that the source may lack")
    parser.add_argument("--allow-unexpected", nargs="+", default=[], metavar="GLOB", help="names that are left over")
    parser.add_argument("--in-chans", type=int, metavar="N", help="channels: 3 are summed to 1, 1 is spread over 3")
    parser.add_argument("--registers", type=int, metavar="N", help="registers: those that the source lacks are new")
    parser.add_argument("--size", type=int, metavar="PX", help="side of pictures: the position table is resampled")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Reads, adapts, writes, compares and tells."""
    from dinov2.formats.importing import Changes, import_weights

    if arguments.revision and Path(arguments.weights).exists():
        raise ConfigError(f"--revision {arguments.revision}: {arguments.weights} is a path, and no id of a hub.")
    with progress_bar() as bar:
        line = bar.add_task("import", total=STAGES)
        begun: list[str] = []

        def tell(status: str) -> None:
            bar.update(line, completed=len(begun), status=status)
            begun.append(status)

        imported = import_weights(
            arguments.weights,
            folder=arguments.output_dir,
            revision=arguments.revision,
            which=arguments.which,
            arch=arguments.arch,
            changes=Changes(in_chans=arguments.in_chans, registers=arguments.registers, size_px=arguments.size),
            allow_missing=tuple(arguments.allow_missing),
            allow_unexpected=tuple(arguments.allow_unexpected),
            tell=tell,
        )
        bar.update(line, completed=STAGES, status="done")
    _tell(imported)
    return 0


def _tell(imported: "Imported") -> None:
    table = Table("part", "used", "resized", "missing", "left over", box=None, pad_edge=False, header_style="bold")
    for part, report in imported.reports.items():
        counts = (report.used, report.resized, report.missing, report.unexpected)
        table.add_row(part, *(str(len(names)) for names in counts))
    print_table(table)
    for report in imported.reports.values():
        said = {"resized": report.resized, "missing": report.missing, "left over": report.unexpected}
        for word, names in said.items():
            for name in names:
                stdout.print(f"  {word}: {name}", markup=False)
        for note in report.notes:
            stdout.print(f"  {note}", markup=False)
    for note in imported.notes:
        stdout.print(f"  {note}", markup=False)
    for file in imported.files:
        stdout.print(f"{file}  {decimal(file.stat().st_size)}", markup=False)
    for check in imported.checks:
        stdout.print(check, markup=False)
    stdout.print(f"next: {imported.next_step}", markup=False)
    stdout.print(f"  or: dinov2 train ... student.pretrained_weights={shlex.quote(str(imported.folder))}", markup=False)
