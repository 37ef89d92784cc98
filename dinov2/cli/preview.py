"""`dinov2 preview`: look at what a configuration does before spending hours on it."""

import argparse
from pathlib import Path

from dinov2.cli.console import progress_bar, stdout

EXAMPLES = """examples:
  dinov2 preview augmentation --dataset pictures/manifest.parquet --output crops.png
  dinov2 preview augmentation --dataset pictures --output c.png --config-file vitb14_cxr crops.local_crops_number=4"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command; each thing to draw is a sub-command of its own."""
    subjects = commands.add_parser(
        "preview",
        help="draw augmented crops and masks",
        description="Look at what a configuration does.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(dest="subject", required=True, metavar="SUBJECT")
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
