"""`dinov2 preview augmentation`: films with their crop boxes, crops, masks, and every operation before and after.

In: words. Out: a PNG or an HTML page.
"""

import argparse

from rich.filesize import decimal

from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.preview.drawing import (
    FORMATTER,
    add_configuration_options,
    form_of,
    open_configuration,
    preset_of,
    tell_next,
)

EXAMPLES = """examples:
  dinov2 preview augmentation --dataset pictures/manifest.parquet --output crops.html --steps
  dinov2 preview augmentation --dataset pictures --output c.png --config-file vitb14_cxr crops.local_crops_number=4"""


def add_subject(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words."""
    parser = subjects.add_parser(
        "augmentation",
        help="crops and masks as the networks will see them",
        description="Draw what the networks will see: films with crop boxes, crops, masks, and what was done to each.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    add_configuration_options(parser, rows=4)
    parser.add_argument(
        "--steps",
        action="store_true",
        help="also both global crops and a local one before and after every operation, with the drawn numbers",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens the pictures, draws, writes."""
    from dinov2.data.preview import augmentation_grid, write_picture
    from dinov2.pages import write_page
    from dinov2.preview import augmentation_page

    form = form_of(arguments.output)
    with progress_bar() as bar:
        line = bar.add_task("films", total=None, status="")
        opened = open_configuration(arguments)
        config, maker = opened.config, opened.maker
        positions = range(min(arguments.rows, len(opened.manifest)))
        bar.update(line, total=len(positions))
        if form == "page":
            text = augmentation_page(
                maker,
                positions,
                title="Crops as the networks see them",
                preset=preset_of(arguments, opened),
                command="dinov2 preview augmentation",
                steps=arguments.steps,
                advance=lambda: bar.advance(line),
            )
            size = f", {decimal(write_page(arguments.output, text))}. Open it in a browser"
        else:
            title = (
                f"preset {config.augmentation.preset}, seed {maker.seed}: 2 global crops of "
                f"{config.crops.global_crops_size} px, {config.crops.local_crops_number} local crops of "
                f"{config.crops.local_crops_size} px; violet = hidden from the student"
            )
            grid = augmentation_grid(
                maker, positions, title=title, steps=arguments.steps, advance=lambda: bar.advance(line)
            )
            write_picture(arguments.output, grid)
            size = ""
    stdout.print(f"{arguments.output}: {len(positions)} of {len(opened.manifest)} films{size}.", markup=False)
    tell_next(arguments)
    return 0
