"""`dinov2 preview preprocess`: a finished conversion as one page.

In: words. Out: an HTML page.
"""

import argparse
from pathlib import Path

from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.preview.drawing import FORMATTER

EXAMPLES = """examples:
  dinov2 preview preprocess pictures --output page.html
  dinov2 preview preprocess pictures --output page.html --private /secure/pictures.private --per-sheet 30 --seed 1"""


def add_subject(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words."""
    parser = subjects.add_parser(
        "preprocess",
        help="a finished conversion as one HTML page",
        description="Counts, histograms and contact sheets of a finished conversion, on one page.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="the conversion's folder, or a manifest")
    parser.add_argument("--output", required=True, type=Path, metavar="F.html", help="the page to write")
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
    """Counts, draws, writes the page."""
    from dinov2.errors import ConfigError
    from dinov2.preprocess.page.page import Request, write_page

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
        page = write_page(request, on_progress=lambda done, total: bar.update(line, completed=done, total=total))
    stdout.print(
        f"{arguments.output}: {page.num_pictures} pictures, {page.num_rejected} rejects, {page.num_shown} films shown, "
        f"{page.num_bytes / 1e6:.1f} MB. Open it in a browser.",
        markup=False,
    )
    if page.num_rejected and not page.has_inputs:
        stdout.print("The rejected films are not shown: give the conversion's private folder with --private.")
    manifest = arguments.pictures / "manifest.parquet" if arguments.pictures.is_dir() else arguments.pictures
    stdout.print(f"next: dinov2 preview augmentation --dataset {manifest} --output crops.png", markup=False)
    return 0
