"""`dinov2 preview preprocess`: a finished conversion as one page, or as contact sheets in one picture.

In: words. Out: an HTML page or a PNG.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.preview.drawing import FORMATTER, add_output_option, form_of
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.preprocess.page.page import Request, Written
    from dinov2.preview.conversion import ConversionSheet

OnProgress = Callable[[int, int], None]

EXAMPLES = """examples:
  dinov2 preview preprocess pictures --output page.html --private /secure/pictures.private --per-sheet 30
  dinov2 preview preprocess pictures --output sheets.png --per-sheet 8 --seed 1"""


def add_subject(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words."""
    parser = subjects.add_parser(
        "preprocess",
        help="a finished conversion: what came through, what did not, the right way up?",
        description="Counts, histograms and contact sheets of a finished conversion, on one page; or the sheets alone, "
        "as a picture.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="the conversion's folder, or a manifest")
    add_output_option(parser)
    parser.add_argument("--per-sheet", type=int, default=12, metavar="N", help="films a contact sheet (default 12)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which films are drawn (default 0)")
    parser.add_argument(
        "--private", type=Path, metavar="DIR", help="where rejected films are found (default: PICTURES.private)"
    )
    parser.add_argument(
        "--show-burned-in", action="store_true", help="also films that say text about the patient is burned in"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Counts, draws, writes."""
    from dinov2.preprocess.page.page import Request

    form = form_of(arguments.output)
    if arguments.per_sheet < 1 or arguments.seed < 0:
        raise ConfigError(
            f"--per-sheet {arguments.per_sheet} --seed {arguments.seed}: give at least 1 film a sheet, and a seed of 0 "
            "or more."
        )
    request = Request(
        pictures=arguments.pictures,
        output=arguments.output,
        private=arguments.private,
        per_sheet=arguments.per_sheet,
        seed=arguments.seed,
        show_burned_in=arguments.show_burned_in,
    )
    with progress_bar() as bar:
        line = bar.add_task("looking", total=None, status="")
        write = _write_page if form == "page" else _write_picture
        written = write(request, lambda done, total: bar.update(line, completed=done, total=total))
    stdout.print(
        f"{arguments.output}: {written.num_pictures:,} pictures, {written.num_rejected:,} rejects, "
        f"{written.num_shown:,} films shown, {decimal(arguments.output.stat().st_size)}"
        f"{'. Open it in a browser' if form == 'page' else ''}.",
        markup=False,
    )
    if written.num_rejected and not written.has_inputs:
        stdout.print("The rejected films are not shown: give the conversion's private folder with --private.")
    manifest = arguments.pictures / "manifest.parquet" if arguments.pictures.is_dir() else arguments.pictures
    crops = arguments.output.with_name(f"crops{arguments.output.suffix}")
    stdout.print(f"next: dinov2 preview augmentation --dataset {manifest} --output {crops} --steps", markup=False)
    return 0


def _write_page(request: "Request", on_progress: OnProgress) -> "Written":
    from dinov2.preprocess.page.page import write_page

    return write_page(request, on_progress=on_progress)


def _write_picture(request: "Request", on_progress: OnProgress) -> "ConversionSheet":
    from dinov2.data.preview import write_picture
    from dinov2.preview.conversion import conversion_sheet

    sheet = conversion_sheet(request, on_progress=on_progress)
    write_picture(request.output, sheet.picture)
    return sheet
