"""`dinov2 preprocess`: an archive of films becomes a folder of pictures with its manifest."""

import argparse
import shlex
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS, INTERRUPTED
from dinov2.cli.console import print_table, progress_bar, stderr, stdout
from dinov2.cli.ending import Ending

if TYPE_CHECKING:
    from dinov2.preprocess.work.convert import Conversion, Request
    from dinov2.preprocess.work.summary import Summary

NUM_COUNTS = 6  # reasons beside the progress bar
EXAMPLES = """examples:
  dinov2 preprocess --input archive/dicom --output pictures --dataset OURS --table films.csv
  dinov2 preprocess --input 2019.zip --output pictures2019 --key-file secrets/id_key
  dinov2 preprocess --input films.parquet --root /pacs --output pictures filters.views=[PA,AP]
  dinov2 preprocess --input nih/images --output nih1024 --config-file percentile resample.short_side=1024 --workers 16
  dinov2 preprocess --input archive --output pictures --share 3/64       # one of 64 tasks; see dinov2 submit

PICTURES/ holds nothing that names a person. PICTURES.private/ holds the key, the crosswalk and the paths: keep it.
Interrupted? Run the same command again: finished files are not done twice."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "preprocess",
        help=COMMANDS["preprocess"],
        description="Convert films to grey PNG; writes images/, manifest.parquet and rejected.csv.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="PATH",
        help="a folder, a file, a zip or tar archive, or a CSV or Parquet list of files",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--config-file", default="raddino", metavar="F", help="a YAML file or raddino, voi, percentile, mimic_jpg"
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="fills the manifest's column 'dataset'")
    parser.add_argument(
        "--table", type=Path, metavar="F", help="CSV or Parquet with patient, view, split and labels, joined by file"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="where a list's relative names start (default: beside it)"
    )
    parser.add_argument("--csv", action="store_true", help="write manifest.csv too")
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="processes (default: one per core; 0: no process of their own)"
    )
    parser.add_argument("--share", type=_share, metavar="K/N", help="convert share K of N into OUTPUT/shares/K-of-N")
    parser.add_argument(
        "--private", type=Path, metavar="DIR", help="key, crosswalk and state (default: OUTPUT.private, beside OUTPUT)"
    )
    parser.add_argument("--key-file", type=Path, metavar="F", help="secret for the ids (default: PRIVATE/id_key)")
    parser.add_argument(
        "--verify-inputs", action="store_true", help="find changed files by their content, not by size and time"
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Converts, with progress; shows the counts and what to do next."""
    from dinov2.preprocess.work.convert import open_conversion

    request = _request(arguments)
    with _stoppable(), open_conversion(request) as conversion:
        try:
            _convert(conversion)
            summary = conversion.finish()
        except KeyboardInterrupt:
            num_done, num_files = conversion.num_finished(), conversion.num_files
            stderr.print(f"interrupted: {num_done} of {num_files} files are done. The same command continues.")
            return INTERRUPTED
    _show(summary)
    if request.share is not None:
        number, count = request.share
        line = Ending(arguments.output, summary.key, request.config).line()
        stdout.print(f"share {number} of {count} is done. When all are:\n  {line}", markup=False)
        return 0  # a share may be small; how many films of the whole could not be used is seen after the merge
    summary.check(max_rejected_share=request.config.max_rejected_share)
    _say_what_next(arguments.output, summary)
    return 0


def _request(arguments: argparse.Namespace) -> "Request":
    from dinov2.config.load import load_typed
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.config.presets import find_config
    from dinov2.preprocess.work.convert import Request
    from dinov2.preprocess.work.pool import default_workers
    from dinov2.preprocess.work.settings import check

    preset = find_config(arguments.config_file, kind="preprocess")
    return Request(
        input=arguments.input,
        output=arguments.output,
        config=check(load_typed(PreprocessConfig, file=preset, overrides=arguments.overrides)),
        dataset=arguments.dataset,
        table=arguments.table,
        list_root=arguments.root,
        key_file=arguments.key_file,
        private=arguments.private,
        share=arguments.share,
        csv=arguments.csv,
        verify_inputs=arguments.verify_inputs,
        num_workers=default_workers() if arguments.workers is None else arguments.workers,
    )


def _convert(conversion: "Conversion") -> None:
    for remark in conversion.remarks:
        stderr.print(f"note: {remark}", markup=False)
    if conversion.num_done:
        stdout.print(f"{conversion.num_done} of {conversion.num_files} files were done before.")
    counts: Counter[str] = Counter()
    with progress_bar() as bar, closing(conversion.run()) as outcomes:
        line = bar.add_task("films", total=conversion.num_files, completed=conversion.num_done, status="")
        for outcome in outcomes:
            counts[outcome.reason or ("unchanged" if outcome.unchanged else "pictures")] += 1
            status = ", ".join(f"{name} {count}" for name, count in counts.most_common(NUM_COUNTS))
            bar.update(line, completed=conversion.num_done, status=status)


def _show(summary: "Summary") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_row("files", str(summary.num_files), "")
    table.add_row("pictures", str(summary.num_pictures), "")
    for flag, count in sorted(summary.flags.items()):
        table.add_row(f"  {flag}", str(count), flag.meaning)
    for reason, count in sorted(summary.reasons.items()):
        table.add_row(reason, str(count), f"{reason.kind}: {reason.meaning}")
    print_table(table)
    for remark in summary.remarks():
        stdout.print(remark, markup=False)
    lines = [("manifest", summary.manifest), ("rejected", summary.rejected), ("key", summary.key)]
    if summary.crosswalk is not None:
        lines.insert(2, ("crosswalk", summary.crosswalk))
    stdout.print("\n".join(f"{name:<10}{path}" for name, path in lines), markup=False)
    stdout.print("Keep key and crosswalk to yourself: they tell who is who.", markup=False)


def _say_what_next(output: Path, summary: "Summary") -> None:
    manifest, pictures = shlex.quote(str(summary.manifest)), shlex.quote(str(output))
    stdout.print(
        "next:\n"
        f"  dinov2 preview preprocess {pictures} --output page.html\n"
        f"  dinov2 preview augmentation --dataset {manifest} --output crops.png\n"
        f"  dinov2 train --config-file cpu_smoke --output-dir RUN train.dataset_path={manifest}",
        markup=False,
    )


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, as a cluster sends it before it takes a machine away, ends the command like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of processes, 0 or more, not {text!r}")
    return value


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N, such as 3/64 for the third of 64 shares, not {text!r}")
    return int(number), int(count)
