"""`dinov2 manifest`: look at, check, build, split and merge the tables that name the pictures."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dinov2.cli.console import progress_bar, stderr, stdout

if TYPE_CHECKING:
    from dinov2.manifest import Manifest

T = TypeVar("T")
NUM_LISTED = 20  # faults of a kind that are written out
FORMATTER = argparse.RawDescriptionHelpFormatter
EXAMPLES = """examples:
  dinov2 manifest show pictures/manifest.parquet
  dinov2 manifest check pictures/manifest.parquet --hashes --against evaluation/manifest.parquet"""
EXAMPLES_OF = {
    "show": """examples:
  dinov2 manifest show pictures/manifest.parquet
  dinov2 manifest show films.csv --rows 3""",
    "check": """examples:
  dinov2 manifest check pictures/manifest.parquet
  dinov2 manifest check pictures/manifest.parquet --hashes --against evaluation/manifest.parquet""",
    "build": """examples:
  dinov2 manifest build --folder pictures --output pictures/manifest.parquet
  dinov2 manifest build --folder pictures --output nih.parquet --table labels.csv --dataset nih""",
    "split": """examples:
  dinov2 manifest split manifest.parquet --output split.parquet
  dinov2 manifest split manifest.parquet --output split.parquet --val 0.05 --test 0 --seed 7""",
    "merge": """examples:
  dinov2 manifest merge mimic/manifest.parquet nih/manifest.parquet --output all.parquet
  dinov2 manifest merge a.csv b.csv c.csv --output all.csv""",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command and its own sub-commands."""
    parser = commands.add_parser(
        "manifest",
        help="look at, check, build, split and merge manifests",
        description="A manifest is a Parquet or CSV file with a row per picture.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_show(_action(actions, "show", words="count pictures by dataset, split and view, and show the first rows"))
    _add_check(
        _action(actions, "check", words="find missing, changed and repeated pictures, and patients in two splits")
    )
    _add_build(_action(actions, "build", words="write the manifest of a folder of pictures"))
    _add_split(_action(actions, "split", words="divide the patients into train, val and test"))
    _add_merge(_action(actions, "merge", words="write several manifests as one"))


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, *, words: str
) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=words, description=words, epilog=EXAMPLES_OF[name], formatter_class=FORMATTER)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M")
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="rows to show (default 5)")
    parser.set_defaults(run=show)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M")
    parser.add_argument("--hashes", action="store_true", help="read every file and compare its sha256")
    parser.add_argument(
        "--against", type=Path, metavar="OTHER", help="a manifest that must share no patient and no picture"
    )
    parser.set_defaults(run=check)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="pictures, in subfolders too")
    parser.add_argument("--output", type=Path, required=True, metavar="M", help="a .parquet or .csv file")
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="what is known of the pictures: patient, view, labels ..."
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="name of the dataset; tells its patients from those of others"
    )
    parser.set_defaults(run=build)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="M")
    parser.add_argument("--output", type=Path, required=True, metavar="M2")
    parser.add_argument("--val", type=float, default=0.1, metavar="SHARE", help="of the patients (default 0.1)")
    parser.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="of the patients (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.set_defaults(run=split)


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifests", type=Path, nargs="+", metavar="M")
    parser.add_argument("--output", type=Path, required=True, metavar="M2")
    parser.set_defaults(run=merge)


def show(arguments: argparse.Namespace) -> int:
    """Prints what is in a manifest."""
    from dinov2.manifest import read

    manifest = read(arguments.manifest)
    stdout.print(f"{arguments.manifest}: {len(manifest):,} pictures, columns: {', '.join(manifest.table.column_names)}")
    _show_counts(manifest)
    for row in range(min(max(0, arguments.rows), len(manifest))):
        known = ", ".join(f"{name}={value}" for name, value in manifest.row(row).items() if value is not None)
        stdout.print(f"  row {row}: {known}", markup=False)
    stdout.print(f"next: dinov2 manifest check {arguments.manifest}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Lists every fault; raises ManifestError where there is one."""
    from dinov2.errors import ManifestError
    from dinov2.manifest import read
    from dinov2.manifest.check import file_faults, shared_faults, table_faults

    manifest = read(arguments.manifest)
    faults = table_faults(manifest)
    if arguments.against:
        faults += shared_faults(manifest, read(arguments.against))
    files = _with_progress(file_faults(manifest, hashes=arguments.hashes), words="checking files", total=len(manifest))
    faults += [fault for fault in files if fault is not None]
    listed: Counter[str] = Counter()
    for fault in faults:
        listed[fault.kind] += 1
        if listed[fault.kind] <= NUM_LISTED:
            stdout.print(f"{fault.kind}: {fault.text}", markup=False)
    if faults:
        counts = ", ".join(f"{count} {kind}" for kind, count in listed.items())
        raise ManifestError(f"{arguments.manifest}: {len(faults)} faults ({counts}). Mend the files or their rows.")
    what = "present, the right size and unchanged" if arguments.hashes else "present and the right size"
    stdout.print(f"{arguments.manifest}: {len(manifest):,} pictures, all {what}; no patient is in two splits.")
    stdout.print(f"next: dinov2 train --config-file cpu_smoke --output-dir RUN train.dataset_path={arguments.manifest}")
    return 0


def build(arguments: argparse.Namespace) -> int:
    """Writes the manifest of a folder, with size and hash of every picture."""
    from dinov2.manifest import from_folder, read
    from dinov2.manifest.edit import join, measure, rebase, with_dataset, with_measures

    manifest = from_folder(arguments.folder)
    if arguments.table:
        manifest, unknown = join(manifest, read(arguments.table))
        stdout.print(f"{arguments.table}: knows {len(manifest) - unknown:,} of the {len(manifest):,} pictures.")
    if arguments.dataset:
        manifest = with_dataset(manifest, arguments.dataset)
    measures = list(_with_progress(measure(manifest), words="reading pictures", total=len(manifest)))
    unreadable = [manifest.path(row) for row, one in enumerate(measures) if one.sha256 is None]
    for path in unreadable[:NUM_LISTED]:
        stderr.print(f"cannot be opened: {path}", markup=False)
    _write(rebase(with_measures(manifest, measures), arguments.output.parent), arguments.output)
    if unreadable:
        stdout.print(f"{len(unreadable)} of them cannot be opened; `dinov2 manifest check` names them.")
    stdout.print(f"next: dinov2 manifest check {arguments.output}")
    return 0


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
    _write(rebase(divided, arguments.output.parent), arguments.output)
    stdout.print(f"next: dinov2 manifest check {arguments.output}")
    return 0


def merge(arguments: argparse.Namespace) -> int:
    """Writes several manifests as one."""
    from dinov2.manifest import read
    from dinov2.manifest.edit import merge as merged

    _write(merged([read(path) for path in arguments.manifests], root=arguments.output.parent), arguments.output)
    stdout.print(f"next: dinov2 manifest check {arguments.output}")
    return 0


def _write(manifest: "Manifest", path: Path) -> None:
    manifest.write(path)
    stdout.print(f"{path}: {len(manifest):,} pictures.")
    _show_counts(manifest)


def _show_counts(manifest: "Manifest") -> None:
    for column in ("dataset", "split", "view"):
        counts = Counter(str(value) for value in manifest.table.column(column).to_pylist() if value is not None)
        if counts:
            listed = ", ".join(f"{value} {count:,}" for value, count in counts.most_common(NUM_LISTED))
            stdout.print(f"  {column}: {listed}{', ...' if len(counts) > NUM_LISTED else ''}", markup=False)


def _with_progress(items: Iterable[T], *, words: str, total: int) -> Iterator[T]:
    with progress_bar() as bar:
        task = bar.add_task(words, total=total, status="")
        for item in items:
            yield item
            bar.advance(task)
