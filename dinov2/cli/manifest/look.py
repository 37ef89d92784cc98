"""`dinov2 manifest show` and `check`: what is in a manifest, and what is wrong with it.

In: a manifest file. Out: lines on standard output; ManifestError where `check` finds a fault.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli.console import stdout
from dinov2.cli.manifest.action import NUM_LISTED, Action, show_counts, with_progress
from dinov2.cli.manifest.leaks import find_leaks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dinov2.manifest.leakage import Pairs

NUM_SAMPLED = 2000  # rows whose files `--files sample` looks at


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M", help="a .parquet or .csv file")
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="rows to show (default 5)")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M", help="a .parquet or .csv file")
    parser.add_argument(
        "--files",
        choices=("all", "sample", "none"),
        default="all",
        help=f"which rows' pictures are opened: every one (default), {NUM_SAMPLED:,} spread evenly, or none",
    )
    parser.add_argument("--hashes", action="store_true", help="read those files and compare their sha256")
    against = parser.add_argument_group("leakage")
    against.add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="an evaluation manifest that must share no patient and no picture: by file, id, name and perceptual hash",
    )
    against.add_argument(
        "--near",
        action="store_true",
        help="read every picture of both, to find copies that were resized, cropped a little or compressed again",
    )
    against.add_argument("--output", type=Path, metavar="CSV", help="gets the rows that leak, for data.exclude=CSV")


def show(arguments: argparse.Namespace) -> int:
    """Prints what is in a manifest."""
    from dinov2.manifest import read

    manifest = read(arguments.manifest)
    columns = ", ".join(manifest.table.column_names)
    stdout.print(f"{arguments.manifest}: {len(manifest):,} pictures, columns: {columns}", markup=False)
    show_counts(manifest)
    for row in range(min(max(0, arguments.rows), len(manifest))):
        known = ", ".join(f"{name}={value}" for name, value in manifest.row(row).items() if value is not None)
        stdout.print(f"  row {row}: {known}", markup=False)
    stdout.print(f"next: dinov2 manifest check {arguments.manifest}", markup=False)
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Lists every fault; raises ManifestError where there is one."""
    from dinov2.errors import ManifestError
    from dinov2.manifest import read
    from dinov2.manifest.check import file_faults, table_faults

    if not arguments.against and (arguments.near or arguments.output):
        raise ManifestError("--near and --output go with --against OTHER, and it is not given.")
    manifest = read(arguments.manifest)
    faults = table_faults(manifest)
    limit = {"all": len(manifest), "sample": NUM_SAMPLED, "none": 0}[arguments.files]
    rows = None if limit >= len(manifest) else manifest.spread_rows(limit)
    num_files = min(limit, len(manifest))
    files = file_faults(manifest, hashes=arguments.hashes, rows=rows)
    faults += [one for one in with_progress(files, words="checking files", total=num_files) if one is not None]
    listed: Counter[str] = Counter()
    for fault in faults:
        listed[fault.kind] += 1
        if listed[fault.kind] <= NUM_LISTED:
            stdout.print(f"{fault.kind}: {fault.text}", markup=False)
    leaks = find_leaks(arguments, manifest, read(arguments.against)) if arguments.against else {}
    _refuse(arguments, listed, leaks)
    what = "present, the right size and unchanged" if arguments.hashes else "present and the right size"
    looked = {
        "all": f"all {what}",
        "sample": f"{num_files:,} of them looked at and {what}",
        "none": "files not looked at",
    }[arguments.files]
    stdout.print(f"{arguments.manifest}: {len(manifest):,} pictures, {looked}; no patient is in two splits.")
    if arguments.against:
        stdout.print(f"  nothing of {arguments.against} is in it.", markup=False)
    stdout.print(f"next: dinov2 train --config-file cpu_smoke --output-dir RUN train.dataset_path={arguments.manifest}")
    return 0


def _refuse(arguments: argparse.Namespace, listed: "Counter[str]", leaks: "Mapping[str, Pairs]") -> None:
    """Raises ManifestError where anything is wrong."""
    from dinov2.errors import ManifestError

    told = []
    if listed:
        counts = ", ".join(f"{count} {kind}" for kind, count in listed.items())
        told.append(f"{sum(listed.values())} faults ({counts}). Mend the files or their rows.")
    if leaks:
        from dinov2.manifest.leakage import leaking_rows

        counts = ", ".join(f"{len(pairs.rows)} {kind}" for kind, pairs in leaks.items())
        instead = "Leave them out" if arguments.output else "Write their rows with --output leak.csv and leave them out"
        file = arguments.output or "leak.csv"
        told.append(
            f"{len(leaking_rows(leaks))} rows share a picture or a patient with {arguments.against} ({counts}). "
            f"{instead}: data.exclude={file}."
        )
    if told:
        raise ManifestError(f"{arguments.manifest}: {' '.join(told)}")


SHOW = Action(
    name="show",
    words="count pictures by dataset, split, view and flag, and show the first rows",
    examples="""examples:
  dinov2 manifest show pictures/manifest.parquet
  dinov2 manifest show films.csv --rows 3""",
    add_arguments=_add_show,
    run=show,
)
CHECK = Action(
    name="check",
    words="find missing, changed and repeated pictures, patients in two splits, and what an evaluation set shares",
    examples="""examples:
  dinov2 manifest check pictures/manifest.parquet
  dinov2 manifest check pictures/manifest.parquet --files sample
  dinov2 manifest check pictures/manifest.parquet --against evaluation/manifest.parquet --near --output leak.csv""",
    add_arguments=_add_check,
    run=check,
)
