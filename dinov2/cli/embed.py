"""`dinov2 embed`: features of pictures as a Parquet file, a row a picture.

In: words. Out: columns image_id, image, those asked for, `cls` and on request `pooled` and `patches`; what made them in
the file's metadata.
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.eval.options import add_backbone_options, open_the_backbone
from dinov2.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from dinov2.eval.examples import Examples

EXAMPLES = """examples:
  dinov2 embed --backbone RUN/exports/400 --dataset pictures/manifest.parquet --output features.parquet
  dinov2 embed --backbone RUN/exports/400 --dataset films.csv --columns patient view --pooled --output f.parquet"""
ALWAYS = ("image_id", "image")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "embed",
        help=COMMANDS["embed"],
        description="Write features of every picture to a Parquet file, row group by row group.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_backbone_options(parser)
    group = parser.add_argument_group("pictures and columns")
    group.add_argument(
        "--dataset", "--manifest", dest="dataset", required=True, metavar="D", help="manifest, or Name:root=FOLDER"
    )
    group.add_argument("--views", nargs="+", metavar="VIEW", default=[], help="pictures of these views only")
    group.add_argument(
        "--columns", nargs="+", metavar="COLUMN", default=[], help="columns of the manifest to keep, e.g. patient split"
    )
    group.add_argument("--pooled", action="store_true", help="the mean patch token as well")
    group.add_argument("--patches", action="store_true", help="all patch tokens as well, row by row of the grid")
    group.add_argument("--output", required=True, type=Path, metavar="F.parquet", help="the file to write")
    group.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens pictures and backbone, writes the file."""
    from dinov2.cli.eval.feature_run import refuse_several_processes
    from dinov2.eval.features import Extractor
    from dinov2.eval.features.table import TableForm, write_table
    from dinov2.eval.pictures import preparation_for

    output: Path = arguments.output
    if output.suffix.lower() != ".parquet":
        raise ConfigError(f"--output {output}: features go into a Parquet file. Give a name that ends in .parquet.")
    if output.exists() and not arguments.overwrite:
        raise ConfigError(f"{output}: is there already. Give another --output, or --overwrite.")
    refuse_several_processes("embed")
    examples = _examples(arguments)
    backbone, device = open_the_backbone(arguments)
    columns = tuple(name for name in dict.fromkeys(arguments.columns) if name not in ALWAYS)
    with progress_bar() as bar:
        line = bar.add_task("pictures", total=len(examples), status="")
        write_table(
            output,
            Extractor(
                backbone=backbone,
                preparation=preparation_for(backbone.traits, size=arguments.size, fit=arguments.fit),
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                device=device,
                precision=arguments.precision,
            ),
            examples,
            form=TableForm(columns=columns, pooled=arguments.pooled, patches=arguments.patches),
            advance=lambda count: bar.advance(line, count),
        )
    size = decimal(output.stat().st_size)
    stdout.print(f"{output}: {len(examples):,} pictures, width {backbone.traits.embed_dim}, {size}.", markup=False)
    words = shlex.join(["--features", str(output), "--manifest", arguments.dataset])
    stdout.print(f"next: dinov2 explore {words}", markup=False)
    return 0


def _examples(arguments: argparse.Namespace) -> "Examples":
    """All pictures of a dataset; what they show is not asked."""
    import numpy as np

    from dinov2.eval.datasets.locating import open_source
    from dinov2.eval.datasets.reading import SourceReader
    from dinov2.eval.datasets.splits import rows_of_split, rows_of_views
    from dinov2.eval.examples import Examples
    from dinov2.manifest import Manifest

    opened = open_source(arguments.dataset, views=arguments.views, masks=None, segmentation=False)
    source = opened.source
    kept = rows_of_views(source.manifest, arguments.views or opened.views, name=source.name)
    rows = np.flatnonzero(kept)
    if opened.split:
        rows = np.intersect1d(rows, rows_of_split(source.manifest, split=opened.split, named=opened.split))
    if not len(rows):
        raise ManifestError(f"{arguments.dataset}: no picture is left. Change --views, or the split.")
    manifest = Manifest(source.manifest.table.take(rows), source.manifest.root)
    patients = ["" if value is None else str(value) for value in manifest.table.column("patient").to_pylist()]
    return Examples(
        name=source.name,
        manifest=manifest,
        reader=SourceReader(source.pictures, None, num_classes=0, rows=rows),
        task="multilabel",
        classes=(),
        labels=np.zeros((len(rows), 0), dtype=np.float32),
        patients=np.asarray(patients, dtype=np.str_),
    )
