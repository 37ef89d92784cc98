"""Words that every preview of a configuration takes, and what they open.

In: a parser, later its arguments. Out: options; `Opened`, a `BatchMaker` with the configuration that it is of.
"""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dinov2.cli.console import stdout
from dinov2.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from dinov2.config.schema import Config, Data
    from dinov2.data.collate import BatchMaker
    from dinov2.manifest import Manifest

FORMATTER = argparse.RawDescriptionHelpFormatter
PAGES, PICTURES = (".html", ".htm"), (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Opened:
    """A configuration over pictures."""

    config: "Config"
    manifest: "Manifest"
    maker: "BatchMaker"


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Where the result goes, and so what it is."""
    parser.add_argument(
        "--output", required=True, type=Path, metavar="F", help="what to write: F.html is a page, F.png a picture"
    )


def add_configuration_options(parser: argparse.ArgumentParser, *, rows: int) -> None:
    """Pictures, configuration, how many films to show."""
    parser.add_argument("--dataset", required=True, metavar="PATH", help="manifest, folder or Name:root=... string")
    add_output_option(parser)
    parser.add_argument("--config-file", metavar="F", help="YAML file or a shipped name; default: our defaults")
    parser.add_argument("--rows", type=int, default=rows, metavar="N", help=f"films to show (default {rows})")
    parser.add_argument("--seed", type=int, metavar="S", help="default: train.seed")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")


def form_of(output: Path) -> Literal["page", "picture"]:
    """By the suffix.  Raises ConfigError for one that is neither, before anything is computed."""
    suffix = output.suffix.lower()
    if suffix in PAGES:
        return "page"
    if suffix in PICTURES:
        return "picture"
    raise ConfigError(f"--output {output}: give a name that ends in .html for a page, or in .png for a picture.")


def open_configuration(arguments: argparse.Namespace) -> Opened:
    """The pictures under the configuration.  Raises ConfigError, ManifestError."""
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config
    from dinov2.data.loader import batch_maker

    if arguments.rows < 1:
        raise ConfigError(f"--rows {arguments.rows}: give 1 or more.")
    file = find_config(arguments.config_file) if arguments.config_file else None
    loaded = load_config(file, overrides=arguments.overrides)
    for message in loaded.messages:
        stdout.print(message, markup=False)
    config = loaded.config
    seed = config.train.seed if arguments.seed is None else arguments.seed
    if seed < 0:
        raise ConfigError(f"--seed {seed}: give 0 or more.")
    manifest = open_dataset(arguments.dataset, data=config.data, seed=seed)
    maker = batch_maker(
        manifest,
        crops=config.crops,
        augmentation=config.augmentation,
        ibot=config.ibot,
        patch_size=config.student.patch_size,
        seed=seed,
    )
    return Opened(config, manifest, maker)


def open_dataset(dataset: str, *, data: "Data", seed: int) -> "Manifest":
    """The pictures of --dataset.  Raises ManifestError in the words of this command, not of a configuration."""
    from dinov2.data.source import open_pictures

    try:
        return open_pictures(dataset, data=data, seed=seed)
    except ManifestError as error:
        raise ManifestError(str(error).replace(f"train.dataset_path={dataset}", f"--dataset {dataset}")) from error


def preset_of(arguments: argparse.Namespace, opened: Opened) -> str:
    """What the configuration is, in a few words."""
    file = Path(arguments.config_file).name if arguments.config_file else "our defaults"
    changed = f" with {' '.join(arguments.overrides)}" if arguments.overrides else ""
    return f"{opened.config.augmentation.preset} ({file}{changed})"


def tell_next(arguments: argparse.Namespace) -> None:
    """The command that trains with what was looked at."""
    options = f" --config-file {arguments.config_file}" if arguments.config_file else ""
    words = " ".join(shlex.quote(word) for word in [f"train.dataset_path={arguments.dataset}", *arguments.overrides])
    stdout.print(f"next: dinov2 train{options} --output-dir RUN {words}", markup=False)
