"""What real processes exchange in a step: every collective operation, as the lowest layer of torch sees it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinov2.config.load import load_config
from dinov2.distributed import World
from dinov2.train.build import build_tools
from dinov2.train.start import start_weights
from tests.forecast.steps import batch_of, step

OPERATIONS = {
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "allreduce_": "all-reduce",
    "all_reduce": "all-reduce",
}


def exchanged_on_rank(world: World, runs: list[list[str]]) -> list[list[tuple[str, int]]]:
    """(operation, bytes of the whole tensor) of a real second step of each run."""
    return [_exchanged(world, words) for words in runs]


def _exchanged(world: World, words: list[str]) -> list[tuple[str, int]]:
    config = load_config(None, overrides=words).config
    tools, batch = build_tools(config, world=world), batch_of(config)
    list(start_weights(tools, config, world=world))
    step(tools, config, batch, number=0)
    with _Exchanged() as seen:
        step(tools, config, batch, number=1)
    return seen.operations


class _Exchanged(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its own operations are seen one by one
        space, name = func._schema.name.split("::")
        if space in ("c10d", "_c10d_functional") and name in OPERATIONS:
            tensors = [t for t in tree_leaves([args, kwargs]) if isinstance(t, Tensor)]
            sizes = [t.nbytes for t in tensors]
            operation = OPERATIONS[name]
            # Of a gather into many tensors the whole is all but the one that is given.
            whole = sum(sizes) - min(sizes) if name == "allgather_" else max(sizes)
            self.operations.append((operation, whole))
        return func(*args, **(kwargs or {}))
