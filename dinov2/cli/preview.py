"""`dinov2 preview`: look at what a configuration does before spending hours on it, and at what a conversion did."""

import argparse
from pathlib import Path

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout

EXAMPLES = """examples:
  dinov2 preview augmentation --dataset pictures/manifest.parquet --output crops.png
  dinov2 preview augmentation --dataset pictures --output c.png --config-file vitb14_cxr crops.local_crops_number=4
  dinov2 preview preprocess pictures --output page.html"""
PAGE_EXAMPLES = """examples:
  dinov2 preview preprocess pictures --output page.html
  dinov2 preview preprocess pictures --output page.html --private /secure/pictures.private --per-sheet 30 --seed 1"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command; each thing to draw is a sub-command of its own."""
    subjects = commands.add_parser(
        "preview",
        help=COMMANDS["preview"],
        description="Look at what a configuration does, or at what a conversion did.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    _add_augmentation(subjects)
    _add_preprocess(subjects)


def _add_augmentation(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser(
        "augmentation",
        help="crops and masks",
        description="Draw what the networks will see: a row a film, with crop boxes, crops and masks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, metavar="PATH", help="manifest, folder or Name:root=... string")
    parser.add_argument("--output", required=True, type=Path, metavar="F.png", help="the picture to write")
    parser.add_argument("--config-file", metavar="F", help="YAML file or a shipped name; default: our defaults")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="films to show (default 4)")
    parser.add_argument("--seed", type=int, metavar="S", help="default: train.seed")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")
    parser.set_defaults(run=run)


def _add_preprocess(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser(
        "preprocess",
        help="a finished conversion as one HTML page",
        description="Counts, histograms and contact sheets of a finished conversion, on one page.",
        epilog=PAGE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.set_defaults(run=run_preprocess)


def run(arguments: argparse.Namespace) -> int:
    """Opens the pictures, draws the grid, writes it."""
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config
    from dinov2.data.loader import batch_maker
    from dinov2.data.preview import augmentation_grid, write_picture
    from dinov2.data.source import open_pictures
    from dinov2.errors import ConfigError

    if arguments.rows < 1:
        raise ConfigError(f"--rows {arguments.rows}: give 1 or more.")
    file = find_config(arguments.config_file) if arguments.config_file else None
    loaded = load_config(file, overrides=arguments.overrides)
    for message in loaded.messages:
        stdout.print(message, markup=False)
    config = loaded.config
    seed = config.train.seed if arguments.seed is None else arguments.seed
    with progress_bar() as bar:
        bar.add_task("drawing", total=None, status="")
        manifest = open_pictures(arguments.dataset, data=config.data, seed=seed)
        maker = batch_maker(
            manifest,
            crops=config.crops,
            augmentation=config.augmentation,
            ibot=config.ibot,
            patch_size=config.student.patch_size,
            seed=seed,
        )
        title = (
            f"preset {config.augmentation.preset}, seed {seed}: 2 global crops of {config.crops.global_crops_size} px, "
            f"{config.crops.local_crops_number} local crops of {config.crops.local_crops_size} px; "
            "violet = hidden from the student"
        )
        positions = range(min(arguments.rows, len(manifest)))
        write_picture(arguments.output, augmentation_grid(maker, positions, title=title))
    stdout.print(f"{arguments.output}: {len(positions)} of {len(manifest)} films.", markup=False)
    options = f" --config-file {arguments.config_file}" if file else ""
    words = " ".join([f"train.dataset_path={arguments.dataset}", *arguments.overrides])
    stdout.print(f"next: dinov2 train{options} --output-dir RUN {words}", markup=False)
    return 0


def run_preprocess(arguments: argparse.Namespace) -> int:
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
