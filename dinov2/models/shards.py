"""Checkpoints of the public trainer, a file per rank, put together again without the processes that wrote them.

In: `model_0000999.rank_0.pth` and its siblings. Out: one network's whole tensors, and the centres.

The files hold what FSDP of the first kind gives as local state: each unit's parameters end to end in one flat
parameter, of which a rank has its part as a `ShardedTensor`; and where the original parameters were kept, those too,
each rank with the values that fall to it. Classes of torch that the files name are never built: what the files say of
an object is kept in stand-ins, so no process group is needed and nothing of the file runs.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from dinov2.errors import WeightsError
from dinov2.models.files import TENSORS_ONLY, Allowed, guarded, load_pickle
from dinov2.models.key_maps import CENTERS, Which, strip_prefix, unwrapped_name
from dinov2.models.shard_layout import by_name, by_unit
from dinov2.models.timm_names import StateDict

RANK_FILE = re.compile(r"(?P<stem>.+)\.rank_(?P<rank>\d+)\.pth")
FINAL = "model_final"
FLAT = "_flat_param"
SHARDED = "ShardedTensor"
GETATTR = "builtins.getattr"  # how pickle names a class inside a class, and a member of an enumeration
KEPT_APART = ("torch.distributed.", "numpy.")  # classes of these are stood in for: shards, and numbers of schedules


class Said:
    """Stands for any object of another class: what the file says of it."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __new__(cls, *_: object) -> "Said":
        """However the file makes it."""
        made = super().__new__(cls)
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getitem__(self, name: str) -> Any:
        """A field, whether the class has slots or not."""
        fields = self.state[1] if isinstance(self.state, tuple) else self.state
        return fields[name]


class SaidOfShards(Tensor):
    """Stands for a `ShardedTensor`, which is a tensor to pickle; no operation is done on it."""

    state: tuple[Any, ...]  # local shards, metadata, process group, layout, ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Torch asks for one where a tensor has no storage."""
        raise NotImplementedError(f"{func} of what is only said of a tensor")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def is_rank_file(path: Path) -> bool:
    """Whether a file is one rank's by its name."""
    return RANK_FILE.fullmatch(path.name) is not None


def rank_files(place: Path) -> tuple[Path, ...]:
    """The files of all ranks, in their order: siblings of a file, or the newest of a folder; none where none are."""
    folder = place if place.is_dir() else place.parent
    found: dict[str, dict[int, Path]] = {}
    for file in folder.iterdir():
        match = RANK_FILE.fullmatch(file.name)
        if match:
            found.setdefault(match["stem"], {})[int(match["rank"])] = file
    if not found:
        return ()
    wanted = RANK_FILE.fullmatch(place.name)
    stem = wanted["stem"] if wanted and not place.is_dir() else max(found, key=lambda name: (name == FINAL, name))
    return tuple(file for _, file in sorted(found[stem].items()))


def read_ranks(
    files: Sequence[Path], *, which: Which = "teacher", arch: str | None = None, values: bool = True
) -> StateDict:
    """The tensors of one network, as `backbone.*`, `dino_head.*`, `ibot_head.*`, and the centres.

    Where only flat parameters are there, what lies in them is said by the run's `config.yaml` beside the files, else
    by their sizes; `arch` ("vit_base") narrows that.

    Raises:
        WeightsError: the file of a rank is absent (named) or cannot be read; no such network; sizes that say nothing.
    """
    first = _read(files[0], values=values)
    world = _world_size(first)
    if world is None:
        _check_first(files[0])
        return _network(first, which, source=files[0]) | _centers(first)
    stem = RANK_FILE.fullmatch(files[0].name)
    assert stem is not None
    wanted = [files[0].with_name(f"{stem['stem']}.rank_{rank}.pth") for rank in range(world)]
    absent = [file.name for file in wanted if not file.is_file()]
    if absent:
        raise WeightsError(
            f"{files[0].parent}: {world} processes wrote this checkpoint and {', '.join(absent)} is not there. "
            "A part of every parameter lies in each file: copy all of them into one folder."
        )
    states = [first if file == files[0] else _read(file, values=values) for file in wanted]
    networks = [_network(state, which, source=file) for state, file in zip(states, wanted, strict=True)]
    flat = [name for name in networks[0] if name.endswith(FLAT)]
    if any(not name.endswith(FLAT) for name in networks[0]):
        pieces = {name: [network[name] for network in networks] for name in networks[0] if name not in flat}
        merged = by_name(pieces, source=files[0].parent)
    else:
        units = {name.removesuffix(FLAT).rstrip("."): [network[name] for network in networks] for name in flat}
        merged = by_unit({unit: _joined(parts) for unit, parts in units.items()}, source=files[0].parent, arch=arch)
    return merged | _centers(first)


def _read(file: Path, *, values: bool) -> Mapping[str, Any]:
    """The model of one rank's file."""
    holder = guarded(file, lambda: load_pickle(file, values=values, allowed=_stand_ins(file)))
    model = holder.get("model", holder)
    if not isinstance(model, Mapping):
        raise WeightsError(f"{file}: its entry 'model' is a {type(model).__name__}. {TENSORS_ONLY}")
    return {unwrapped_name(name): value for name, value in model.items()}


def _stand_ins(file: Path) -> Allowed:
    """One for each class of torch and numpy that the file names; what else it names stays refused."""
    stand_ins: dict[str, Callable[..., Any]] = {}
    for name in get_unsafe_globals_in_checkpoint(file):
        if name == GETATTR:
            stand_ins[name] = _inner_class
        elif name.startswith(KEPT_APART):
            stand_ins[name] = SaidOfShards if name.rpartition(".")[2] == SHARDED else Said
    return [(stand_in, name) for name, stand_in in stand_ins.items()]


def _inner_class(*_: object) -> type[Said]:
    """In the place of `getattr`: whatever is asked for is stood in for."""
    return Said


def _world_size(state: Mapping[str, Any]) -> int | None:
    """How many processes hold a parameter together; None where each holds all of it."""
    sharded = next((value for value in state.values() if isinstance(value, SaidOfShards)), None)
    return None if sharded is None else int(sharded.state[2]["local_world_size"])


def _check_first(file: Path) -> None:
    if not RANK_FILE.fullmatch(file.name):
        raise WeightsError(f"{file}: not a checkpoint of the public trainer.")


def _network(state: Mapping[str, Any], which: Which, *, source: Path) -> StateDict:
    network = strip_prefix(dict(state), f"{which}.")
    if not network:
        raise WeightsError(f"{source}: holds no {which}. Is it a checkpoint of the public trainer?")
    return network


def _centers(state: Mapping[str, Any]) -> StateDict:
    """The same on every rank."""
    return {name: state[name] for name in CENTERS if isinstance(state.get(name), Tensor)}


def _joined(parts: Sequence[Any]) -> Tensor:
    """A flat parameter from every rank's part of it, without what fills up the last."""
    found = [(shard["metadata"]["shard_offsets"][0], shard["tensor"]) for part in parts for shard in part.state[0]]
    whole = torch.cat([tensor for _, tensor in sorted(found, key=lambda pair: pair[0])])
    return whole[: parts[0].state[1]["size"].numel()]
