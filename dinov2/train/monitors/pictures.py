"""Which pictures a run is judged by, and those of this process.

In: the `monitors` section, and the pictures of the training. Out: `Monitored`, the same on every process; grey pictures
of one size, every process's own part of them. They are read once and stay in memory, a byte per pixel.

Legend: N pictures over all processes, n of this one, S side in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinov2.config.schema import Config
from dinov2.data.dataset import Pictures, Unreadable
from dinov2.distributed import World, gather_values
from dinov2.errors import Dinov2Error, ManifestError
from dinov2.eval.examples import Examples, Mask, Picture
from dinov2.eval.pictures import Preparation, batches
from dinov2.manifest import Manifest

LUMINANCE = (0.299, 0.587, 0.114)  # of colour pictures, as the training reads them
WORDS = "monitors.labels, monitors.train_split and monitors.val_split"
READ_AT_ONCE = 32
MAX_NEIGHBOURS = 20  # rows after an unreadable one that are tried in its place


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """Pictures of the splits that probes use, or of the training where there are no labels."""

    train: Examples
    val: Examples | None  # None: without labels

    @property
    def parts(self) -> tuple[Examples, ...]:
        """The splits in the order in which features lie: train, val."""
        return (self.train,) if self.val is None else (self.train, self.val)

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def choose_pictures(config: Config, *, pictures: Manifest) -> Monitored:
    """At most `monitors.max_pictures` of each split, drawn by `train.seed`; the same for any number of processes.

    Raises ManifestError or ConfigError, on every process alike.
    """
    section = config.monitors
    if not section.dataset:
        return Monitored(train=_of_training(_few(len(pictures), config=config), pictures=pictures), val=None)
    from dinov2.eval.datasets import open_data  # a run without labels does without the layouts of datasets

    try:
        data = open_data(
            section.dataset,
            train=None,
            val=None,
            test=None,
            split_names={"train": section.train_split, "val": section.val_split, "test": "test"},
            labels=section.labels,
            masks=None,
            classes=(),
            views=(),
            segmentation=False,
        )
        if data.val is None:
            raise ManifestError(
                f"no picture of the split {section.val_split!r}, so probes have nothing to be scored on. Set "
                "monitors.val_split, or make one: dinov2 manifest split MANIFEST --output MANIFEST2"
            )
        train, val = (part.take(_few(len(part), config=config)) for part in (data.train, data.val))
        return Monitored(train=train, val=val)
    except Dinov2Error as error:
        words = f" In a configuration the words are {WORDS}." if "--" in str(error) else ""
        named = type(error)(f"monitors.dataset = {section.dataset}: {error}{words}")
        named.everywhere = True
        raise named from error


def read_share(monitored: Monitored, *, size: int, world: World, workers: int) -> Tensor:
    """Every `world.size`-th picture from this process's rank on, so that shares differ by one at most.

    -> uint8 [n, S, S]. Raises ManifestError, on every process alike, where one cannot be read.
    """
    fault, read = "", torch.empty(0, size, size, dtype=torch.uint8)
    try:
        read = torch.cat([read, *_read(monitored, size=size, world=world, workers=workers)])
    except ManifestError as error:
        fault = str(error)
    if faults := [text for text in gather_values(fault, world=world) if text]:
        raised = ManifestError(f"monitors: {faults[0]} Mend it, or leave the row out of monitors.dataset.")
        raised.everywhere = True
        raise raised
    return read


def _read(monitored: Monitored, *, size: int, world: World, workers: int) -> Iterator[Tensor]:
    # Features, not pictures, are compared over processes, so mean and deviation come later, on the device.
    preparation = Preparation(size=size, fit="crop", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    before = 0
    for part in monitored.parts:
        rows = np.arange(len(part))[(world.rank - before) % world.size :: world.size]
        reading = batches(part, preparation=preparation, batch_size=READ_AT_ONCE, workers=workers, rows=rows)
        for batch in reading:
            yield _grey(batch.pictures)
        before += len(part)


def _grey(pictures: Tensor) -> Tensor:
    """[B, 1 or 3, S, S] uint8 or float in 0..1 -> uint8 [B, S, S]"""
    if pictures.dtype == torch.uint8 and pictures.shape[1] == 1:
        return pictures[:, 0]
    levels = pictures.float() if pictures.dtype == torch.uint8 else pictures * 255
    if pictures.shape[1] == 3:
        levels = (levels * torch.tensor(LUMINANCE).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return levels[:, 0].round().clamp(0, 255).to(torch.uint8)


def _few(count: int, *, config: Config) -> NDArray[np.int64]:
    """Rows in ascending order: all, or as many as are looked at."""
    order = np.random.default_rng(config.train.seed).permutation(count)
    return np.sort(order[: config.monitors.max_pictures]).astype(np.int64)


def _of_training(rows: NDArray[np.int64], *, pictures: Manifest) -> Examples:
    """Pictures of the training as examples without a label."""
    whole = Examples(
        name="train.dataset_path",
        manifest=pictures,
        reader=_TrainingReader(pictures),
        task="multilabel",
        classes=(),
        labels=np.empty((len(pictures), 0), dtype=np.float32),
        patients=np.empty(len(pictures), dtype=np.str_),
    )
    return replace(whole.take(rows), name="pictures of the training")


class _TrainingReader:
    """Reads as the training does: where a picture cannot be read, its next readable neighbour takes its place."""

    def __init__(self, manifest: Manifest) -> None:
        self._pictures = Pictures(manifest)

    def picture(self, row: int) -> Picture:
        last = ""
        for after in range(min(MAX_NEIGHBOURS, len(self._pictures))):
            neighbour = (row + after) % len(self._pictures)
            try:
                return self._pictures.read(neighbour)
            except Unreadable as error:
                last = f"{self._pictures.path(neighbour)}: {error}"
        raise ManifestError(f"{MAX_NEIGHBOURS} pictures in a row cannot be read; the last is {last}.")

    def mask(self, row: int) -> Mask:
        raise ManifestError(f"row {row}: pictures of the training have no mask.")
