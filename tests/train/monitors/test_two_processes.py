"""Sharded networks are looked at on two processes as on one, and train on as if nobody had looked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from dinov2.distributed import World, gather_to_main
from dinov2.train.monitors.film_passes import see_films
from dinov2.train.monitors.passes import look
from dinov2.train.step import train_step
from tests.distributed.processes import on_ranks
from tests.distributed.sharded_steps import PLAN, config_of, started, views_of, with_strategy

from .glimpses import look_of, shown_on
from .looks import pictures_of

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
WORDINGS = (
    ("train.centering=sinkhorn_knopp", *with_strategy("FULL_SHARD")),
    ("train.centering=centering", *with_strategy("SHARD_GRAD_OP")),
)
LOOKED_AT, FILMS_SEEN_AT = (0, 2), (1, 2)  # each alone, and one after the other as in a run


def trained(world: World, words: tuple[str, ...], *, batch_size: int, looking: bool) -> dict[str, Any]:
    """Three steps of training; what was seen of its pictures and films last, and the networks at the end."""
    tools, what = started(config_of(*words), world=world), look_of(batch_size)
    found: dict[str, Any] = {}
    for step in range(3):
        train_step(tools, [views_of(step, world=world)], plan=PLAN, num_micro_batches=1)
        gathered = gathered_weights(tools.networks)
        if looking and step in LOOKED_AT:
            found |= vars(look(tools, pictures_of(world), what=what, temperature=0.07))
        if looking and step in FILMS_SEEN_AT:
            seen = see_films(tools, shown_on(world), what=what, temperature=0.07)
            found |= vars(seen) if seen is not None else {}
        assert gathered_weights(tools.networks) <= gathered, "what was gathered for a look is let go of"
    state = {name: value.numpy() for name, value in gather_to_main(tools.networks, world=world).items()}
    return {name: np.asarray(value) for name, value in found.items()} | {"state": state}


def gathered_weights(networks: torch.nn.Module) -> set[str]:
    """Names of weights that lie whole in this process."""
    return {name for name, weight in networks.named_parameters() if not isinstance(weight, DTensor)}


def all_trained(world: World) -> list[dict[str, Any]]:
    """With a batch of 1 the process that has fewer pictures has none for the last pass, and makes it all the same."""
    return [trained(world, words, batch_size=1, looking=looking) for words in WORDINGS for looking in (True, False)]


def test_two_processes_see_what_one_does_and_train_on_as_if_they_had_not_looked() -> None:
    first, second = on_ranks(all_trained, size=2)
    for words, looked, not_looked, elsewhere in zip(WORDINGS, first[::2], first[1::2], second[::2], strict=True):
        alone = trained(ALONE, words, batch_size=4, looking=True)
        for name in ("cls", "pooled", "smoothness", "tokens"):
            np.testing.assert_allclose(looked[name], alone[name], rtol=1e-4, atol=2e-4, err_msg=name)
        for name in ("entropy", "marginal_entropy", "prototype_usage"):
            assert float(looked[name]) == pytest.approx(float(alone[name]), rel=1e-3), name
        for name in ("attention", "agreement"):
            assert np.abs(looked[name].astype(int) - alone[name]).max() <= 1, name
        assert np.array_equal(looked["cls"], elsewhere["cls"]), "every process has all features"
        assert "tokens" not in elsewhere, "films are for the main process"
        for name, value in not_looked["state"].items():
            assert np.array_equal(looked["state"][name], value), (words, name)
