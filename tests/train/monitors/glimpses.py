"""Teacher and student seen at films on any number of processes; what comes out as plain values."""

from typing import Any

import numpy as np
import torch

from dinov2.distributed import World, gather_to_main
from dinov2.looks import Films
from dinov2.train.monitors.film_passes import see_films
from dinov2.train.monitors.films import Shown, gather_pictures
from dinov2.train.monitors.passes import Look
from dinov2.train.step import train_step
from tests.distributed.sharded_steps import PLAN, config_of, started, views_of

from .looks import NUM_PICTURES, pictures_of

ROWS = np.array([1, 4, 5, 10], dtype=np.int32)
GRID = (4, 4)
BESIDE, PATCHES_BESIDE = (0, 2, 9), ((0, 5, 15), (1, 2, 3), (4, 8, 12))
NO_FILMS = Films(
    thumbnails=np.zeros((0, 0, 0), np.uint8), image_ids=(), rows=ROWS, monitored_ids=(), monitored_labels=()
)


def shown_on(world: World, *, hidden: bool = True) -> Shown:
    masks = np.random.default_rng(0).random((len(ROWS), *GRID)) < 0.4
    pixels = gather_pictures(ROWS, share=pictures_of(world), world=world)
    return Shown(
        rows=ROWS,
        pixels=pixels,
        masks=masks if hidden else np.zeros_like(masks),
        beside=gather_pictures(BESIDE, share=pictures_of(world), world=world),
        patches_beside=torch.tensor(PATCHES_BESIDE),
        films=NO_FILMS,
    )


def look_of(batch_size: int) -> Look:
    return Look(num_pictures=NUM_PICTURES, batch_size=batch_size, mean=(0.5,) * 3, std=(0.25,) * 3)


def glimpses(world: World, words: tuple[str, ...], *, batch_size: int, look_at: tuple[int, ...]) -> dict[str, Any]:
    """Three steps of training, the films seen after some of them; the last glimpse, and the networks at the end."""
    tools = started(config_of(*words), world=world)
    seen: dict[str, Any] = {}
    for step in range(3):
        train_step(tools, [views_of(step, world=world)], plan=PLAN, num_micro_batches=1)
        if step not in look_at:
            continue
        blocks = [*tools.networks.student["backbone"].blocks, *tools.networks.teacher["backbone"].blocks]
        before = _state_of(tools.networks, blocks)
        found = see_films(tools, shown_on(world), what=look_of(batch_size), temperature=0.07)
        after = _state_of(tools.networks, blocks)
        assert torch.equal(before[0], after[0]), "no random number was drawn"
        assert before[1:] == after[1:], "modes, forms and kernels are as they were"
        assert (found is not None) == world.is_main
        if found is not None:
            seen = {name: np.asarray(getattr(found, name)) for name in ("tokens", "attention", "agreement")}
    state = gather_to_main(tools.networks, world=world)
    return seen | {"state": {name: value.numpy() for name, value in state.items()}}


def _state_of(networks: torch.nn.Module, blocks: list[Any]) -> tuple[Any, ...]:
    return (
        torch.get_rng_state(),
        [module.training for module in networks.modules()],
        [(block.compute, block.attn.kernel) for block in blocks],
    )
