"""`dinov2 preview masks`: iBOT's masks as drawn, and how much they hide.

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
from dinov2.errors import ConfigError

EXAMPLES = """examples:
  dinov2 preview masks --dataset pictures/manifest.parquet --output masks.html --config-file vitb14_cxr
  dinov2 preview masks --dataset pictures --output masks.png --rows 6 ibot.mask_ratio_min_max=[0.2,0.6]"""


def add_subject(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words."""
    parser = subjects.add_parser(
        "masks",
        help="iBOT's masks, how much they hide, where, and in what shapes",
        description="Draw iBOT's masks as a run draws them, and count how much they hide against what was asked.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    add_configuration_options(parser, rows=6)
    parser.add_argument(
        "--films", type=int, default=1024, metavar="N", help="films whose masks are counted (default 1024)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens the pictures, counts, draws, writes."""
    from dinov2.data.preview import write_picture
    from dinov2.pages import write_page
    from dinov2.preview import count_masks, mask_page, mask_sheet
    from dinov2.preview.masks import in_words

    form = form_of(arguments.output)
    if arguments.films < 1:
        raise ConfigError(f"--films {arguments.films}: give 1 or more.")
    with progress_bar() as bar:
        line = bar.add_task("masks", total=arguments.films, status="")
        opened = open_configuration(arguments)
        counts = count_masks(
            opened.maker.masks, num_films=arguments.films, advance=lambda count: bar.advance(line, count)
        )
        bar.update(line, completed=arguments.films)
        positions = range(min(arguments.rows, len(opened.manifest)))
        if form == "page":
            text = mask_page(
                opened.maker,
                positions,
                counts,
                preset=preset_of(arguments, opened),
                batch_size=opened.config.train.batch_size_per_gpu,
                command="dinov2 preview masks",
            )
            size = f", {decimal(write_page(arguments.output, text))}. Open it in a browser"
        else:
            write_picture(arguments.output, mask_sheet(opened.maker, positions, counts))
            size = ""
    stdout.print(f"{arguments.output}: {len(positions)} films{size}.", markup=False)
    stdout.print(f"{in_words(counts)}.", markup=False)
    tell_next(arguments)
    return 0
