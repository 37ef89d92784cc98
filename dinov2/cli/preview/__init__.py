"""`dinov2 preview`: look at what a configuration does before spending hours on it, at what a conversion did, and at
what a backbone sees.

In: words. Out: a PNG or one HTML page, by the suffix of `--output`.
"""

import argparse

from dinov2.cli import COMMANDS
from dinov2.cli.preview import augmentation, features, masks, preprocess

EXAMPLES = """examples:
  dinov2 preview augmentation --dataset pictures/manifest.parquet --output crops.html --steps
  dinov2 preview augmentation --dataset pictures --output c.png --config-file vitb14_cxr crops.local_crops_number=4
  dinov2 preview masks --dataset pictures/manifest.parquet --output masks.html --config-file vitb14_cxr
  dinov2 preview preprocess pictures --output page.html
  dinov2 preview features --backbone RUN --dataset pictures/manifest.parquet --output features.html"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command; each thing to draw is a sub-command of its own."""
    subjects = commands.add_parser(
        "preview",
        help=COMMANDS["preview"],
        description="Look at what a configuration does, at what a conversion did, or at what a backbone sees.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for subject in (augmentation, masks, preprocess, features):
        subject.add_subject(subjects)
