"""Shards of any number of processes, written and read by any other number, on 1-D and 2-D meshes."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from dinov2.checkpoint.store import CheckpointStore, load_tensors, read_facts
from dinov2.checkpoint.writer import local_part
from tests.distributed.processes import on_ranks

WIDTHS = (3, 5, 2, 1)  # none of them divisible by every number of processes; some shards are empty


def whole_state(seed: int) -> dict[str, torch.Tensor]:
    """What every process would hold of a model and AdamW's moments if nothing were sharded."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(WIDTHS)))
    state = {f"networks.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"optimizer.{name}.exp_avg"] = torch.randn_like(parameter)
        state[f"optimizer.{name}.step"] = torch.tensor(float(seed))
    return state | {"center": torch.randn(1, 7)}


@cache
def layouts(shape: tuple[int, ...]) -> dict[str, DTensor]:
    """How `fully_shard` lays out the model over the processes."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("copy", "shard")[-len(shape) :])
    model = nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(WIDTHS)))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return dict(model.state_dict())


def sharded_state(seed: int, *, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The same as this process holds it; every process cuts its shards out of the whole by itself."""
    state = whole_state(seed)
    for name, value in list(state.items()):
        layout = layouts(shape).get(name.removeprefix("networks.").removeprefix("optimizer.").removesuffix(".exp_avg"))
        if layout is not None:
            mesh, placements = layout.device_mesh, layout.placements
            state[name] = distribute_tensor(value.detach(), mesh, placements, src_data_rank=None)
    return state


def zeros_like(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def wrongly_read(folder: Path, names: dict[str, int], *, shape: tuple[int, ...]) -> list[str]:
    """Reads checkpoints (name -> seed) into one layout; names what is not what was written."""
    wrong = []
    for name, seed in names.items():
        expected = sharded_state(seed, shape=shape)
        state = zeros_like(expected)
        load_tensors(folder / name / "1", into=state)
        wrong += [
            f"{name} {key}"
            for key, value in state.items()
            if not torch.equal(local_part(value), local_part(expected[key]))
        ]
    return wrong


def write(folder: Path, name: str, seed: int, *, shape: tuple[int, ...]) -> None:
    store = CheckpointStore(folder / name, asynchronous=seed % 2 == 0)
    state = sharded_state(seed, shape=shape)
    if len(shape) == 1:
        store.self_test(tensors=state, facts={})
    store.save(1, tensors=state, facts={"seed": seed})
    with torch.no_grad():
        for tensor in state.values():
            tensor.fill_(7.0)  # training goes on
    store.wait()
    store.close()


ALONE = {"one": 1}
OF_TWO = {"two_line": 2, "two_copies": 3}
OF_FOUR = {"four_line": 5, "four_copies": 6, "four_pairs": 8}


def read_and_write(world, folder: str, reads: dict[str, int], writes: dict[str, int]) -> list[str]:
    """Every checkpoint into every layout, then one of every layout.  Names what was read wrong."""
    wrong = []
    for shape in ((world.size,), (world.size, 1)):
        wrong += wrongly_read(Path(folder), reads, shape=shape)
    for (name, seed), shape in zip(writes.items(), ((world.size,), (world.size, 1), (2, 2)), strict=False):
        write(Path(folder), name, seed, shape=shape)
    return wrong


def test_a_checkpoint_of_any_number_of_processes_is_read_by_any_other(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "one").save(1, tensors=whole_state(1), facts={"seed": 1})
    assert on_ranks(read_and_write, str(tmp_path), ALONE, OF_TWO, size=2) == [[]] * 2
    assert on_ranks(read_and_write, str(tmp_path), ALONE | OF_TWO, OF_FOUR, size=4) == [[]] * 4
    assert on_ranks(read_and_write, str(tmp_path), OF_FOUR, {}, size=2) == [[]] * 2
    for name, seed in (ALONE | OF_TWO | OF_FOUR).items():
        state = zeros_like(whole_state(seed))
        load_tensors(tmp_path / name / "1", into=state)
        torch.testing.assert_close(state, whole_state(seed), rtol=0, atol=0)
    assert read_facts(tmp_path / "four_line" / "1")["environment"]["processes"] == 4
