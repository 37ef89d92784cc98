"""`dinov2 preprocess`: a folder of films becomes a folder of pictures with its manifest."""

import argparse
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS, INTERRUPTED
from dinov2.cli.console import progress_bar, stderr, stdout

if TYPE_CHECKING:
    from dinov2.preprocess.work.convert import Conversion, Summary

EXAMPLES = """examples:
  dinov2 preprocess --input archive/dicom --output pictures --dataset OURS --table films.csv
  dinov2 preprocess --input nih/images --output nih518 --config-file percentile resample.short_side=1024 --workers 16

Interrupted? Run the same command again: finished files are not done twice."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "preprocess",
        help=COMMANDS["preprocess"],
        description="Convert films to 8-bit grey PNG; writes images/, manifest.parquet and rejected.csv.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, type=Path, metavar="DIR", help="a folder of films, or one file")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--config-file", default="raddino", metavar="F", help="a YAML file or raddino, voi, percentile, mimic_jpg"
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="fills the manifest's column 'dataset'")
    parser.add_argument("--table", type=Path, metavar="CSV", help="patient, view, split and labels, joined by file")
    parser.add_argument("--csv", action="store_true", help="write manifest.csv too")
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="processes (default: one per core; 0: no process of their own)"
    )
    parser.add_argument("--key-file", type=Path, metavar="F", help="secret for the ids (default: OUTPUT/.id_key)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Converts, with progress; shows the counts and what to do next."""
    from dinov2.config.load import load_typed
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.config.presets import find_config
    from dinov2.preprocess.work.convert import Request, open_conversion
    from dinov2.preprocess.work.pool import default_workers
    from dinov2.preprocess.work.settings import check

    preset = find_config(arguments.config_file, kind="preprocess")
    config = check(load_typed(PreprocessConfig, file=preset, overrides=arguments.overrides))
    request = Request(
        input=arguments.input,
        output=arguments.output,
        config=config,
        dataset=arguments.dataset,
        table=arguments.table,
        key_file=arguments.key_file,
        csv=arguments.csv,
        num_workers=default_workers() if arguments.workers is None else arguments.workers,
    )
    with open_conversion(request) as conversion:
        try:
            _convert(conversion)
            summary = conversion.finish()
        except KeyboardInterrupt:
            num_done, num_files = conversion.num_done, conversion.num_files
            stderr.print(f"interrupted: {num_done} of {num_files} files are done. The same command continues.")
            return INTERRUPTED
    _show(summary)
    summary.check(max_rejected_share=config.max_rejected_share)
    _say_what_next(summary)
    return 0


def _convert(conversion: "Conversion") -> None:
    if conversion.num_done:
        stdout.print(f"{conversion.num_done} of {conversion.num_files} files were done before.")
    counts: Counter[str] = Counter()
    with progress_bar() as bar, closing(conversion.run()) as outcomes:
        line = bar.add_task("films", total=conversion.num_files, completed=conversion.num_done, status="")
        for outcome in outcomes:
            counts[outcome.reason or "pictures"] += 1
            bar.update(line, advance=1, status=", ".join(f"{count} {name}" for name, count in counts.most_common(4)))


def _show(summary: "Summary") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_row("pictures", str(summary.num_pictures), "")
    for flag, count in sorted(summary.flags.items()):
        table.add_row(f"  {flag}", str(count), flag.meaning)
    for reason, count in sorted(summary.reasons.items()):
        table.add_row(reason, str(count), f"{reason.kind}: {reason.meaning}")
    stdout.print(table)
    for remark in summary.remarks():
        stdout.print(remark, markup=False)
    stdout.print(f"manifest  {summary.manifest}\nrejected  {summary.rejected}", markup=False)


def _say_what_next(summary: "Summary") -> None:
    manifest = summary.manifest
    stdout.print(
        "next:\n"
        f"  dinov2 preview augmentation --dataset {manifest} --output crops.png\n"
        f"  dinov2 train --config-file train/cpu_smoke --output-dir RUN train.dataset_path={manifest}",
        markup=False,
    )


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of processes, 0 or more, not {text!r}")
    return value
