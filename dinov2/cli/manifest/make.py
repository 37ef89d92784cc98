"""`dinov2 manifest build`, `layouts` and `pack`: manifests of pictures that lie somewhere, or of shards made from them.

In: a folder of pictures, a public dataset, or a manifest. Out: a manifest file, and for `pack` the shards.
"""

import argparse
from pathlib import Path

from dinov2.cli.console import progress_bar, stderr, stdout
from dinov2.cli.manifest.action import NUM_LISTED, Action, show_counts, with_progress, write_and_show


def _add_build(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--folder", type=Path, metavar="DIR", help="pictures, in subfolders too")
    what.add_argument("--layout", metavar="NAME", help="a public dataset; `dinov2 manifest layouts` lists them")
    parser.add_argument("--output", type=Path, required=True, metavar="M", help="a .parquet or .csv file")
    folder = parser.add_argument_group("with --folder")
    folder.add_argument(
        "--table", type=Path, metavar="CSV", help="what is known of the pictures: patient, view, labels ..."
    )
    folder.add_argument(
        "--dataset", metavar="NAME", help="name of the dataset; tells its patients from those of others"
    )
    layout = parser.add_argument_group("with --layout")
    layout.add_argument("--root", type=Path, metavar="DIR", help="the folder with the dataset's tables")
    layout.add_argument("--images", type=Path, metavar="DIR", help="its pictures, where they are not below --root")
    layout.add_argument(
        "--keep-absent", action="store_true", help="keep rows of the tables whose picture is not on disk"
    )


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M", help="a .parquet or .csv file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets shards/ and manifest.parquet")
    parser.add_argument(
        "--shard-mb", type=int, default=1024, metavar="N", help="megabytes a shard at most (default 1024)"
    )


def build(arguments: argparse.Namespace) -> int:
    """Writes the manifest of a folder of pictures, or of a public dataset."""
    _check_words(arguments)
    return _build_layout(arguments) if arguments.layout else _build_folder(arguments)


def layouts(_arguments: argparse.Namespace) -> int:
    """Lists the public datasets that `build --layout` knows, and what each needs."""
    from dinov2.layouts import LAYOUTS

    for layout in LAYOUTS.values():
        stdout.print(f"{layout.name}: {layout.summary}", markup=False)
        for table in layout.tables:
            needed = f" (where it is there: {table.gives})" if table.optional else ""
            stdout.print(f"  table: {' or '.join(table.names)}{needed}", markup=False)
        stdout.print(f"  labels: {layout.labels}", markup=False)
    stdout.print("next: dinov2 manifest build --layout NAME --root DIR --output M")
    return 0


def _check_words(arguments: argparse.Namespace) -> None:
    """Words that the chosen form does not read are refused, so that nobody believes they did something."""
    from dinov2.errors import ManifestError

    other = ("table", "dataset") if arguments.layout else ("root", "images", "keep_absent")
    form, instead = ("--layout", "--folder") if arguments.layout else ("--folder", "--layout")
    for name in other:
        if getattr(arguments, name):
            word = name.replace("_", "-")
            raise ManifestError(f"--{word} goes with {instead}, and {form} is given. Leave one of them out.")
    if arguments.layout and not arguments.root:
        raise ManifestError(f"--layout {arguments.layout} needs --root, the folder with the dataset's tables.")


def _build_layout(arguments: argparse.Namespace) -> int:
    from dinov2.layouts import build as build_layout
    from dinov2.manifest.edit import rebase

    with progress_bar() as bar:
        task = bar.add_task("reading tables, listing folders", total=None, status="")
        built = build_layout(
            arguments.layout, arguments.root, images=arguments.images, keep_absent=arguments.keep_absent
        )
        bar.update(task, total=len(built.manifest), completed=len(built.manifest))
    for remark in built.remarks:
        stderr.print(remark, markup=False)
    write_and_show(rebase(built.manifest, arguments.output.parent), arguments.output)
    kept = "kept in the manifest" if arguments.keep_absent else "left out"
    for count, words in (
        (built.num_absent, f"rows of the tables have no picture on disk; {kept}"),
        (built.num_unnamed, "pictures on disk are named by no row; left out"),
    ):
        if count:
            stdout.print(f"  {count:,} {words}.")
    stdout.print(f"next: dinov2 preprocess --input {arguments.output} --output PICTURES", markup=False)
    return 0


def _build_folder(arguments: argparse.Namespace) -> int:
    """With size and hash of every picture."""
    from dinov2.manifest import from_folder, read
    from dinov2.manifest.edit import join, measure, rebase, with_dataset, with_measures

    manifest = from_folder(arguments.folder)
    if arguments.table:
        manifest, unknown = join(manifest, read(arguments.table))
        stdout.print(f"{arguments.table}: knows {len(manifest) - unknown:,} of the {len(manifest):,} pictures.")
    if arguments.dataset:
        manifest = with_dataset(manifest, arguments.dataset)
    measures = list(with_progress(measure(manifest), words="reading pictures", total=len(manifest)))
    unreadable = [manifest.path(row) for row, one in enumerate(measures) if one.sha256 is None]
    for path in unreadable[:NUM_LISTED]:
        stderr.print(f"cannot be opened: {path}", markup=False)
    write_and_show(rebase(with_measures(manifest, measures), arguments.output.parent), arguments.output)
    if unreadable:
        stdout.print(f"{len(unreadable)} of them cannot be opened; `dinov2 manifest check` names them.")
    stdout.print(f"next: dinov2 manifest check {arguments.output}", markup=False)
    return 0


def pack(arguments: argparse.Namespace) -> int:
    """Writes the pictures of a manifest into tar shards."""
    from dinov2.manifest import read
    from dinov2.manifest.pack import Packing

    manifest = read(arguments.manifest)
    packing = Packing(manifest, arguments.output, shard_mb=arguments.shard_mb)
    with progress_bar() as bar:
        task = bar.add_task("packing", total=len(manifest), status="")
        for num_rows in packing.run():
            bar.update(task, completed=num_rows)
    packed = packing.manifest()
    output = arguments.output / "manifest.parquet"
    packed.write(output)
    kept = f", {packing.num_kept:,} of them complete before" if packing.num_kept else ""
    shards = "1 shard" if packing.num_shards == 1 else f"{packing.num_shards:,} shards"
    stdout.print(f"{output}: {len(packed):,} pictures in {shards}{kept}.", markup=False)
    show_counts(packed)
    stdout.print(f"next: dinov2 manifest check {output}", markup=False)
    return 0


BUILD = Action(
    name="build",
    words="write the manifest of a folder of pictures, or of a public dataset from its own tables",
    examples="""examples:
  dinov2 manifest build --layout mimic-cxr --root physionet.org/files/mimic-cxr/2.1.0 --output mimic.parquet
  dinov2 manifest build --folder pictures --output pictures/manifest.parquet
  dinov2 manifest build --folder pictures --output nih.parquet --table labels.csv --dataset nih""",
    add_arguments=_add_build,
    run=build,
)
LAYOUTS = Action(
    name="layouts",
    words="list the public datasets that `build --layout` knows",
    examples="""examples:
  dinov2 manifest layouts
  dinov2 manifest layouts | less""",
    add_arguments=lambda _parser: None,
    run=layouts,
)
PACK = Action(
    name="pack",
    words="put the pictures of a manifest into tar shards, for file systems that do not like millions of small files",
    examples="""examples:
  dinov2 manifest pack pictures/manifest.parquet --output packed
  dinov2 manifest pack pictures/manifest.parquet --output packed --shard-mb 256""",
    add_arguments=_add_pack,
    run=pack,
)
