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
from dinov2.eval.features.forward import feature_batches, form_of
from dinov2.eval.features.store import Wanted, Writer, read_features
from dinov2.eval.features.volumes import by_volume
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
    wanted = Wanted(
        traits=backbone.traits,
        examples=examples,
        preparation=preparation,
        precision=precision,
        blocks=blocks,
        patches=patches,
    )
    place = from_main(wanted.find(folder) if world.is_main else None, world=world)
    if place is None:
        form = form_of(backbone, blocks=blocks, patches=patches, preparation=preparation, device=device)

        def write(writer: Writer) -> None:
            for batch in feature_batches(
                backbone,
                examples,
                blocks=blocks,
                patches=patches,
                preparation=preparation,
                batch_size=batch_size,
                workers=workers,
                device=device,
                precision=precision,
                rows=share_of(len(examples), batch_size=batch_size, world=world),
            ):
                writer.add(batch)
                if advance is not None:
                    advance(len(batch.rows))
            if world.size > 1:
                writer.sync()

        place = _written(partial(Writer, folder, wanted=wanted, form=form), write, world=world)
    features = read_features(place, blocks=blocks, patches=patches)
    if examples.volumes is not None and examples.task != "segmentation":
        return by_volume(features, examples)
    return Labelled(features, examples)


def share_of(num_rows: int, *, batch_size: int, world: World) -> NDArray[np.int64]:
    """Rows of this process: whole batches, one after the other."""
    num_batches = -(-num_rows // batch_size)
    first, last = (edge * num_batches // world.size * batch_size for edge in (world.rank, world.rank + 1))
    return np.arange(first, min(last, num_rows))


def _written(make: Callable[..., Writer], write: Callable[[Writer], None], *, world: World) -> Path:
    """The main process makes the files, all write their rows; one that fails is heard by all, which then raise."""
    if world.is_main:
        with make() as writer:
            from_main(writer.partial, world=world)
            _all_wrote(writer, write, world=world)
            place = writer.finish()
        return from_main(place, world=world)
    made = from_main(Path(), world=world)
    if not made.is_dir():
        raise ConfigError(f"{made.parent}: is not shared by all processes. Give a --features-dir that they share.")
    with make(partial=made) as writer:
        _all_wrote(writer, write, world=world)
    return from_main(Path(), world=world)


def _all_wrote(writer: Writer, write: Callable[[Writer], None], *, world: World) -> None:
    failure: Dinov2Error | OSError | None = None
    try:
        write(writer)
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
