"""`dinov2 manifest split` and `merge`: a new manifest from others.

In: manifest files. Out: a manifest file, and for `merge` the joined `rejected.csv` beside it.
"""

import argparse
from pathlib import Path

from dinov2.cli.console import stderr, stdout
from dinov2.cli.manifest.action import Action, write_and_show


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M", help="a .parquet or .csv file")
    parser.add_argument("--output", type=Path, required=True, metavar="M2", help="the new .parquet or .csv file")
    parser.add_argument("--val", type=float, default=0.1, metavar="SHARE", help="of the patients (default 0.1)")
    parser.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="of the patients (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw (default 0)")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    from dinov2.config.preprocess import Quality

    bits = Quality().near_duplicate_bits
    parser.add_argument("manifests", type=Path, nargs="+", metavar="M", help="those to put together")
    parser.add_argument("--output", type=Path, required=True, metavar="M2", help="the new .parquet or .csv file")
    parser.add_argument(
        "--reject-flags",
        default="",
        metavar="FLAGS",
        help="duplicate_pixels, near_duplicate or both with a comma: such rows go to rejected.csv (default: they stay, "
        "with the flag)",
    )
    parser.add_argument(
        "--near-duplicate-bits",
        type=int,
        default=bits,
        metavar="N",
        help=f"quality.near_duplicate_bits of the conversion (default {bits})",
    )


def split(arguments: argparse.Namespace) -> int:
    """Writes a manifest in which every patient is in one of train, val and test."""
    from dinov2.manifest import read
    from dinov2.manifest.edit import rebase, split_by_patient

    manifest = read(arguments.manifest)
    if manifest.table.column("patient").null_count:
        stderr.print(
            f"{manifest.table.column('patient').null_count:,} rows have no patient; each counts as one of its own."
        )
    divided = split_by_patient(manifest, val=arguments.val, test=arguments.test, seed=arguments.seed)
    write_and_show(rebase(divided, arguments.output.parent), arguments.output)
    stdout.print(f"next: dinov2 manifest check {arguments.output}", markup=False)
    return 0


def merge(arguments: argparse.Namespace) -> int:
    """Writes several manifests as one, with their rejects."""
    from dinov2.errors import ManifestError
    from dinov2.manifest.merge import merge as merged

    if not 0 <= arguments.near_duplicate_bits <= 63:
        raise ManifestError(f"--near-duplicate-bits {arguments.near_duplicate_bits}: give 0 to 63 of the 256 bits.")
    done = merged(
        arguments.manifests,
        output=arguments.output,
        near_duplicate_bits=arguments.near_duplicate_bits,
        reject_flags=[flag.strip() for flag in arguments.reject_flags.split(",") if flag.strip()],
    )
    num_manifests = len(arguments.manifests)
    stdout.print(f"{arguments.output}: {done.num_pictures:,} pictures of {num_manifests} manifests.", markup=False)
    for words, counts in (("flagged", done.flags), ("turned away now", done.turned_away)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            stdout.print(f"  {words}: {listed}")
    if done.num_rejected:
        rejected = arguments.output.parent / "rejected.csv"
        stdout.print(f"{rejected}: {done.num_rejected:,} rejects, those of the manifests included.", markup=False)
    stdout.print(f"next: dinov2 manifest check {arguments.output}", markup=False)
    return 0


SPLIT = Action(
    name="split",
    words="divide the patients into train, val and test",
    examples="""examples:
  dinov2 manifest split manifest.parquet --output split.parquet
  dinov2 manifest split manifest.parquet --output split.parquet --val 0.05 --test 0 --seed 7""",
    add_arguments=_add_split,
    run=split,
)
MERGE = Action(
    name="merge",
    words="write several manifests as one: shares of a conversion, or several datasets",
    examples="""examples:
  dinov2 manifest merge pictures/shares/*/manifest.parquet --output pictures/manifest.parquet
  dinov2 manifest merge mimic/manifest.parquet nih/manifest.parquet --output all/manifest.parquet
  dinov2 manifest merge a.csv b.csv c.csv --output all.csv --reject-flags duplicate_pixels,near_duplicate""",
    add_arguments=_add_merge,
    run=merge,
)
