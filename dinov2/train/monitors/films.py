"""Which films people are shown at every look, and what of each is hidden from the student.

In: the monitored pictures, this process's share of them, the configuration. Out: `Shown`, the same on every process and
at every look of a run: all is drawn from `train.seed`.

Legend: F films, S side in pixels, h x w grid of patches, N monitored pictures, W processes; C pictures beside the
films, p patches of each.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2.config.schema import Config
from dinov2.data.masking import draw_mask, mask_recipe
from dinov2.distributed import World, gather_values
from dinov2.eval.examples import Examples
from dinov2.looks import Films
from dinov2.train.monitors.pictures import Monitored

FILM_PX = 224  # longest side of a film's thumbnail
NEIGHBOUR_PX = 128
WORD = 2**64
# Sinkhorn spreads the patches it is given over all prototypes. Those of a dozen films are too much alike for that: what
# they share would be torn apart, and the student could not tell it. So other pictures lend it some of theirs.
BESIDE_PER_FILM, PATCHES_BESIDE = 3, 64


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The films and what is drawn for them."""

    rows: NDArray[np.int32]  # [F] of the monitored pictures
    pixels: Tensor  # uint8 [F, S, S]
    masks: NDArray[np.bool_]  # [F, h, w], True = hidden; nothing is where iBOT has no weight
    beside: Tensor  # uint8 [C, S, S], other monitored pictures; none where nothing needs them
    patches_beside: Tensor  # int64 [C, p], patches of these among which those of the films are assigned
    films: Films


def gather_films(config: Config, *, monitored: Monitored, share: Tensor, world: World) -> Shown:
    """The films of all processes on every one.  `share` uint8 [n, S, S] holds every W-th picture from the rank on."""
    rows = choose_films(monitored, count=config.monitors.films, seed=config.train.seed)
    beside = choose_beside(config, monitored=monitored, films=rows)
    gathered = gather_pictures([*rows, *beside], share=share, world=world)
    pixels = gathered[: len(rows)]
    masks = draw_masks(config, size=pixels.shape[-1], count=len(rows))
    films = Films(
        thumbnails=np.stack([thumbnail(one, longest_px=FILM_PX) for one in pixels.numpy()]),
        image_ids=tuple(_names(monitored)[row] for row in rows),
        rows=rows,
        monitored_ids=_names(monitored),
        monitored_labels=tuple(text for part in monitored.parts for text in labels_in_words(part)),
    )
    return Shown(
        rows=rows,
        pixels=pixels,
        masks=masks,
        beside=gathered[len(rows) :],
        patches_beside=draw_patches(len(beside), of=masks[0].size, seed=config.train.seed),
        films=films,
    )


def choose_films(monitored: Monitored, *, count: int, seed: int) -> NDArray[np.int32]:
    """Rows of at most `count` films, ascending: of val as long as there are any, then of train.  -> [F]"""
    rng = np.random.default_rng([seed % WORD, len(monitored)])
    starts = np.cumsum([0, *map(len, monitored.parts)])
    drawn = [start + rng.permutation(len(part)) for start, part in zip(starts, monitored.parts, strict=False)]
    return np.sort(np.concatenate(drawn[::-1])[:count]).astype(np.int32)


def choose_beside(config: Config, *, monitored: Monitored, films: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows of pictures that lend Sinkhorn their patches: three for a film, as far as there are any.  -> [C]"""
    if config.train.centering != "sinkhorn_knopp" or config.ibot.loss_weight == 0:
        return np.zeros(0, dtype=np.int64)
    others = np.setdiff1d(np.arange(len(monitored)), films)
    rng = np.random.default_rng([config.train.seed % WORD, len(monitored), len(films)])
    return np.sort(rng.permutation(others)[: BESIDE_PER_FILM * len(films)])


def draw_patches(count: int, *, of: int, seed: int) -> Tensor:
    """Different patches of each of `count` pictures, of so many that each has.  -> int64 [C, p]"""
    rng = np.random.default_rng([seed % WORD, count, of])
    drawn = [np.sort(rng.permutation(of)[:PATCHES_BESIDE]) for _ in range(count)]
    return torch.from_numpy(np.array(drawn, dtype=np.int64).reshape(count, min(of, PATCHES_BESIDE)))


def draw_masks(config: Config, *, size: int, count: int) -> NDArray[np.bool_]:
    """A mask for every film as iBOT draws them, from the smallest share hidden to the largest.  -> [F, h, w]"""
    recipe = mask_recipe(config.ibot, crop_size=size, patch_size=config.student.patch_size, seed=config.train.seed)
    if recipe.probability == 0:
        return np.zeros((count, *recipe.grid), dtype=bool)
    rng = np.random.default_rng([config.train.seed % WORD, count])
    low, high = recipe.ratio
    shares = low + (high - low) * (rng.permutation(count) + 0.5) / max(count, 1)
    hidden = [max(1, int(recipe.num_patches * share)) for share in shares]
    return np.stack(
        [draw_mask(recipe.grid, one, max_block_patches=recipe.max_block_patches, rng=rng) for one in hidden]
    )


def gather_pictures(rows: Iterable[int] | NDArray[np.int32], *, share: Tensor, world: World) -> Tensor:
    """Monitored pictures by row, from whichever process holds each.  Called by every process.  -> uint8 [R, S, S]"""
    wanted = [int(row) for row in rows]
    mine = {row: share[row // world.size].numpy() for row in wanted if row % world.size == world.rank}
    found = {row: levels for some in gather_values(mine, world=world) for row, levels in some.items()}
    return torch.from_numpy(np.stack([found[row] for row in wanted]))


def thumbnail(levels: NDArray[np.uint8], *, longest_px: int) -> NDArray[np.uint8]:
    """Smaller where it is larger than that.  [S, S] -> [s, s]"""
    side = min(longest_px, *levels.shape)
    if levels.shape == (side, side):
        return levels
    return np.asarray(Image.fromarray(levels).resize((side, side), Image.Resampling.LANCZOS))


def labels_in_words(examples: Examples) -> list[str]:
    """The classes that each picture is stated to have; empty where there is none, or nothing is known."""
    names = np.asarray(examples.classes, dtype=np.str_)
    if not len(names):
        return [""] * len(examples)
    if examples.task == "multiclass":
        return [str(names[int(index)]) for index in examples.labels]
    return [", ".join(names[given == 1]) for given in examples.labels]


def _names(monitored: Monitored) -> tuple[str, ...]:
    return tuple(str(name) for part in monitored.parts for name in part.ids)
