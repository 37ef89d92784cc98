"""What every probe on features does first: open the pictures and the backbone, then make or find the features.

In: arguments with the options of `options`. Out: the splits as `Labelled`; progress on standard error.

Started by torchrun, every process makes its share of the features; then the first goes on alone and the others end.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli.console import progress_bar, stderr
from dinov2.cli.eval.options import device_of, open_eval_data, open_the_backbone
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from dinov2.distributed import World
    from dinov2.eval.backbones import Backbone
    from dinov2.eval.examples import EvalData, Examples
    from dinov2.eval.features import Labelled
    from dinov2.eval.pictures import Preparation

BLOCKS_KEPT = 4  # at least, so that another probe finds what it needs
LONGEST_WAIT_SECONDS = 24 * 3600.0  # for another process's share


def features_folder(arguments: argparse.Namespace) -> Path:
    """Where features are kept: --features-dir, or `features` in the output folder."""
    folder: Path = arguments.features_dir or arguments.output_dir / "features"
    return folder


def labelled_splits(
    arguments: argparse.Namespace, *, blocks: int, patches: bool = False, data: "EvalData | None" = None
) -> "tuple[Labelled, Labelled | None, Labelled | None]":
    """Train, val and test with features of the last `blocks` blocks, or of all where the backbone has fewer.

    `data`: opened before; default: by the arguments. Raises ManifestError, ConfigError, WeightsError.
    """
    from dinov2.distributed import open_world

    device_of(arguments)
    opened = open_eval_data(arguments) if data is None else data
    with open_world(device=_kind(arguments.device), timeout_seconds=LONGEST_WAIT_SECONDS) as world:
        run = _Run(arguments, world=world, blocks=blocks, patches=patches)
        made = {name: run.of(name, examples) for name, examples in opened.splits()}
    if not world.is_main:
        raise SystemExit(0)
    return made["train"], made.get("val"), made.get("test")


class _Run:
    """A backbone with its preparation, for one split after the other."""

    def __init__(self, arguments: argparse.Namespace, *, world: "World", blocks: int, patches: bool) -> None:
        from dinov2.eval.pictures import preparation_for

        self._arguments, self._world, self._patches = arguments, world, patches
        self._backbone, self._device = _backbone(arguments, world=world)
        self._preparation: Preparation = preparation_for(self._backbone.traits, size=arguments.size, fit=arguments.fit)
        self._blocks = min(blocks, self._backbone.traits.depth)
        self._kept = min(max(blocks, BLOCKS_KEPT), self._backbone.traits.depth)

    def of(self, name: str, examples: "Examples") -> "Labelled":
        """Features of one split, with a bar unless they are found."""
        from dinov2.distributed import from_main
        from dinov2.eval.features import Wanted, extract

        folder, traits = features_folder(self._arguments), self._backbone.traits
        wanted = Wanted(
            traits=traits,
            examples=examples,
            preparation=self._preparation,
            precision=self._arguments.precision,
            blocks=self._blocks,
            patches=self._patches,
        )
        found = from_main(wanted.find(folder) if self._world.is_main else None, world=self._world)
        with progress_bar() as bar:
            line = None
            if found is None and self._world.is_main:
                line = bar.add_task(f"features of {name}", total=len(examples), status="")
            labelled = extract(
                self._backbone,
                examples,
                folder=folder,
                blocks=self._kept if found is None else self._blocks,
                patches=self._patches,
                preparation=self._preparation,
                batch_size=self._arguments.batch_size,
                workers=self._arguments.workers,
                device=self._device,
                precision=self._arguments.precision,
                # The others are about as far; the bar counts for all.
                advance=lambda count: None if line is None else bar.advance(line, count * self._world.size),
                world=self._world,
            )
        if self._world.is_main:
            place = found or wanted.find(folder)
            said = "found in" if found else "kept in"
            stderr.print(
                f"features of {name}: {len(examples):,} pictures, {said} {place}", markup=False, soft_wrap=True
            )
        return replace(labelled, features=labelled.features.last(self._blocks))


def refuse_several_processes(command: str) -> None:
    """Raises ConfigError where torchrun or a SLURM step started more than one."""
    from dinov2.distributed import read_world

    if (size := read_world(os.environ, device="cpu").size) > 1:
        raise ConfigError(f"{command} is one process, and {size} were started. Start it without torchrun.")


def _kind(device: str) -> str:
    return "auto" if device == "auto" else "cpu" if device.startswith("cpu") else "cuda"


def _backbone(arguments: argparse.Namespace, *, world: "World") -> "tuple[Backbone, torch.device]":
    if world.size == 1:
        return open_the_backbone(arguments)
    from dinov2.eval.backbones import open_backbone

    return open_backbone(arguments.backbone).to(world.device), world.device
