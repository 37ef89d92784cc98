"""`dinov2 preview features`: what a backbone sees on some films.

In: words. Out: a PNG or an HTML page on which patches can be clicked.
"""

import argparse

from rich.filesize import decimal

from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.eval.options import BACKBONES, open_the_backbone
from dinov2.cli.preview.drawing import FORMATTER, add_output_option, form_of, open_dataset
from dinov2.errors import ConfigError

EXAMPLES = """examples:
  dinov2 preview features --backbone RUN --dataset pictures/manifest.parquet --output features.html
  dinov2 preview features --backbone facebook/dinov2-small --dataset films --output f.png --films 6 --size 518"""
MOST_FILMS = 48  # a page of more is too large to be handed on


def add_subject(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words."""
    parser = subjects.add_parser(
        "features",
        help="what a backbone sees: patch tokens as colours, attention, similarity to a clicked patch",
        description="Show patch tokens of some films as colours, the CLS token's attention, and, on a page, the "
        "similarity of any patch to all others.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    parser.add_argument("--backbone", required=True, metavar="B", help=BACKBONES)
    parser.add_argument("--dataset", required=True, metavar="PATH", help="manifest, folder or Name:root=... string")
    add_output_option(parser)
    parser.add_argument("--films", type=int, default=12, metavar="N", help="films, drawn by lot (default 12)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which films are drawn (default 0)")
    parser.add_argument("--image-ids", nargs="+", default=[], metavar="ID", help="these films, in this order")
    parser.add_argument("--views", nargs="+", default=[], metavar="VIEW", help="films of these views only")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the pictures (default: the backbone's own)")
    parser.add_argument(
        "--fit",
        choices=["crop", "letterbox", "squash"],
        default="crop",
        help="how a film becomes square: short side to size and the middle, bars, or distorted (default: crop)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens backbone and pictures, encodes, writes."""
    from dinov2.config.schema import Data
    from dinov2.data.preview_sheet import short, write_picture
    from dinov2.eval.pictures import preparation_for
    from dinov2.pages import write_page
    from dinov2.preview import choose_rows, feature_maps, feature_page, feature_sheet

    form = form_of(arguments.output)
    _check(arguments)
    with progress_bar() as bar:
        line = bar.add_task("films", total=None, status="")
        manifest = open_dataset(arguments.dataset, data=Data(views=tuple(arguments.views)), seed=arguments.seed)
        rows = choose_rows(manifest, films=arguments.films, seed=arguments.seed, image_ids=arguments.image_ids)
        backbone, device = open_the_backbone(arguments)
        bar.update(line, total=len(rows))
        preparation = preparation_for(backbone.traits, size=arguments.size, fit=arguments.fit)
        maps = feature_maps(
            backbone, manifest, rows, preparation=preparation, device=device, advance=lambda: bar.advance(line)
        )
        bar.update(line, status="drawing")
        if form == "page":
            text = feature_page(
                maps, traits=backbone.traits, title="What the backbone sees", command="dinov2 preview features"
            )
            size = f", {decimal(write_page(arguments.output, text))}. Open it in a browser and click a patch"
        else:
            write_picture(
                arguments.output, feature_sheet(maps, title=f"{short(backbone.traits.name, most=90)}: patch tokens")
            )
            size = ""
    height, width = maps.grid
    stdout.print(f"{arguments.output}: {len(maps)} films of {height} x {width} patches{size}.", markup=False)
    stdout.print(
        f"next: dinov2 embed --backbone {arguments.backbone} --dataset {arguments.dataset} --output features.parquet",
        markup=False,
    )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    asked = len(arguments.image_ids) or arguments.films
    if not 1 <= asked <= MOST_FILMS:
        raise ConfigError(f"{asked} films: give 1 to {MOST_FILMS}, with --films or --image-ids.")
    if arguments.seed < 0:
        raise ConfigError(f"--seed {arguments.seed}: give 0 or more.")
