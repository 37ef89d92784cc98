"""Features of a split: found on disk, or made once and kept there.

In: a backbone on its device and `Examples`. Out: `Labelled`. With several processes each does a share of the batches
and all get the same.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2.distributed import World, from_main, gather_values
from dinov2.errors import ConfigError, Dinov2Error, ManifestError
from dinov2.eval.backbones.backbone import Backbone
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Labelled
from dinov2.eval.features.forward import Extractor
from dinov2.eval.features.store import RowWriter, Wanted, give_name, make_files, read_features
from dinov2.eval.features.volumes import by_volume
from dinov2.eval.making import making, remove_leftovers
from dinov2.eval.pictures import Preparation

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def extract(
    backbone: Backbone,
    examples: Examples,
    *,
    folder: Path,
    blocks: int,
    patches: bool = False,
    preparation: Preparation,
    batch_size: int,
    workers: int,
    device: torch.device | str,
    precision: str = "fp32",
    advance: Callable[[int], None] | None = None,
    world: World = ALONE,
) -> Labelled:
    """Features of the last `blocks` blocks, and patch tokens of the last where `patches` is set.

    Kept below `folder` (which all processes share) under a key of weights, preparation, precision and pictures, and
    found there by the next probe. float32; patch tokens float16 where `precision` is not fp32. Rows are the pictures in
    their order; of a classification of volumes, the volumes. `advance` hears of every batch how many pictures it was.
    Every process makes whole batches, so the numbers are those of one process.

    Raises:
        ManifestError: a picture cannot be read, or its features are not finite.
        ConfigError: the backbone has fewer blocks, no patch tokens, or does not take the size; a batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: give 1 or more.")
    if not len(examples):
        raise ManifestError(f"{examples.name}: no picture, so there are no features.")
    extractor = Extractor(
        backbone=backbone,
        preparation=preparation,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
    )
    wanted = Wanted(
        traits=backbone.traits,
        examples=examples,
        preparation=preparation,
        precision=precision,
        blocks=blocks,
        patches=patches,
    )
    place = from_main(_found(wanted, folder) if world.is_main else None, world=world)
    if place is None:
        place = _made(extractor, wanted, folder=folder, advance=advance or (lambda _: None), world=world)
    features = read_features(place, blocks=blocks, patches=patches)
    if examples.volumes is not None and examples.task != "segmentation":
        return by_volume(features, examples)
    return Labelled(features, examples)


def share_of(num_rows: int, *, batch_size: int, world: World) -> NDArray[np.int64]:
    """Rows of this process: whole batches, one after the other."""
    num_batches = -(-num_rows // batch_size)
    first, last = (edge * num_batches // world.size * batch_size for edge in (world.rank, world.rank + 1))
    return np.arange(first, min(last, num_rows))


def _found(wanted: Wanted, folder: Path) -> Path | None:
    """What an earlier command made; what one that was killed left half made is removed."""
    remove_leftovers(folder)
    return wanted.find(folder)


def _made(extractor: Extractor, wanted: Wanted, *, folder: Path, advance: Callable[[int], None], world: World) -> Path:
    """The main process makes the files, all write their rows; one that fails is heard by all, which then raise."""
    form = extractor.form(blocks=wanted.blocks, patches=wanted.patches)
    write = partial(_write_share, extractor, wanted, advance=advance, world=world)
    if world.is_main:
        with making(folder, name=wanted.name) as partial_folder:
            place = partial_folder / wanted.name
            make_files(place, wanted=wanted, form=form)
            from_main(place, world=world)
            _all_wrote(lambda: write(place), world=world)
            final = give_name(place, folder, wanted=wanted, form=form)
        return from_main(final, world=world)
    place = from_main(Path(), world=world)
    if not place.is_dir():
        raise ConfigError(f"{folder}: is not shared by all processes. Give a --features-dir that they share.")
    _all_wrote(lambda: write(place), world=world)
    return from_main(Path(), world=world)


def _write_share(
    extractor: Extractor, wanted: Wanted, place: Path, *, advance: Callable[[int], None], world: World
) -> None:
    """The rows of this process into the files in `place`."""
    rows = share_of(len(wanted.examples), batch_size=extractor.batch_size, world=world)
    with RowWriter(place) as writer:
        for batch in extractor.batches(wanted.examples, blocks=wanted.blocks, patches=wanted.patches, rows=rows):
            writer.add(batch)
            advance(len(batch.rows))
        if world.size > 1:
            writer.sync()


def _all_wrote(write: Callable[[], None], *, world: World) -> None:
    failure: Dinov2Error | OSError | None = None
    try:
        write()
    except (Dinov2Error, OSError) as error:
        failure = error
    if world.size == 1:
        if failure is not None:
            raise failure
        return
    said = [text for text in gather_values("" if failure is None else str(failure), world=world) if text]
    if failure is not None:
        raise failure
    if said:
        raise ManifestError(said[0])
