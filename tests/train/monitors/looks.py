"""Looks at a teacher on any number of processes; what comes out as plain values."""

from typing import Any

import numpy as np
import torch

from dinov2.distributed import World, gather_to_main
from dinov2.train.monitors.passes import Look, look
from dinov2.train.step import train_step
from tests.distributed.sharded_steps import PLAN, config_of, started, views_of

NUM_PICTURES = 11


def pictures_of(world: World) -> torch.Tensor:
    """Every process's share of the same pictures."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (NUM_PICTURES, 32, 32), dtype=np.uint8))[world.rank :: world.size]


def looks(world: World, words: tuple[str, ...], *, batch_size: int, look_at: tuple[int, ...]) -> dict[str, Any]:
    """Three steps of training with looks after some of them; features of the last look, and the networks at the end."""
    tools = started(config_of(*words), world=world)
    what = Look(num_pictures=NUM_PICTURES, batch_size=batch_size, mean=(0.5,) * 3, std=(0.25,) * 3)
    seen: dict[str, Any] = {}
    for step in range(3):
        train_step(tools, [views_of(step, world=world)], plan=PLAN, num_micro_batches=1)
        if step not in look_at:
            continue
        before = (torch.get_rng_state(), [module.training for module in tools.networks.modules()])
        found = look(tools, pictures_of(world), what=what, temperature=0.07)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == [module.training for module in tools.networks.modules()]
        seen = {name: getattr(found, name) for name in ("entropy", "marginal_entropy", "prototype_usage")}
        seen |= {name: getattr(found, name).numpy() for name in ("cls", "pooled", "smoothness")}
    state = gather_to_main(tools.networks, world=world)
    return seen | {"state": {name: value.numpy() for name, value in state.items()}}
