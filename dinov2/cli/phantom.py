"""`dinov2 phantom`: synthetic chest films, for a first try and for tests."""

import argparse
from pathlib import Path

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout

EXAMPLES = """examples:
  dinov2 phantom --output phantoms --count 64 --seed 0
  dinov2 phantom --output large --count 8 --seed 1 --short-side 2048

The same count, seed and size give the same bytes. Every film says SYNTHETIC in its header and its picture."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "phantom",
        help=COMMANDS["phantom"],
        description="Draw synthetic chest films with masks and labels: dicom/, masks/, labels.csv.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the films go")
    parser.add_argument("--count", required=True, type=int, metavar="N", help="number of films")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="what decides every film (default: 0)")
    parser.add_argument("--short-side", type=int, default=640, metavar="PX", help="pixels (default: 640)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draws, with progress; says what to do next."""
    from dinov2.phantom.series import draw_series

    output = arguments.output
    films = draw_series(output, count=arguments.count, seed=arguments.seed, short_side=arguments.short_side)
    with progress_bar() as bar:
        line = bar.add_task("films", total=arguments.count, status="")
        for film in films:
            bar.update(line, advance=1, status=film.technique.syntax.name)
    stdout.print(
        f"{arguments.count} synthetic films: {output}/dicom, {output}/masks, {output}/labels.csv\n"
        "next:\n"
        f"  dinov2 preprocess --input {output}/dicom --output pictures --table {output}/labels.csv\n"
        f"masks fit pictures of the films' own size: add resample.short_side={arguments.short_side}, then\n"
        f"  cp -r {output}/masks pictures/",
        markup=False,
    )
    return 0
