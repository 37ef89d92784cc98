import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dinov2.checkpoint.store import CheckpointStore, find_checkpoint, load_tensors, read_facts, tensor_names
from dinov2.errors import CheckpointError
from tests.distributed.processes import on_ranks


def tensors(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": scale * torch.arange(6.0).view(2, 3), "a.step": torch.tensor(scale)}


def store_in(folder: Path, *, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(folder=folder / "checkpoints", keep_last=keep_last)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = store_in(tmp_path).save(3, tensors=tensors(), facts={"position": 24})
    target = {name: torch.zeros_like(value) for name, value in tensors().items()}
    load_tensors(path, into=target)
    torch.testing.assert_close(target, tensors())
    assert read_facts(path) == {"step": 3, "position": 24}
    assert tensor_names(path) == {"a.weight", "a.step"}


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep_last=2)
    for step in (1, 2, 10):
        store.save(step, tensors=tensors(step), facts={})
    assert store.steps() == [2, 10]
    assert find_checkpoint(tmp_path) == store.path(10)
    assert find_checkpoint(store.path(2)) == store.path(2)


def test_zero_keeps_every_checkpoint(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep_last=0)
    for step in (1, 2, 3):
        store.save(step, tensors=tensors(), facts={})
    assert store.steps() == [1, 2, 3]


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(1, tensors=tensors(), facts={})
    (tmp_path / "checkpoints" / ".partial-2").mkdir()
    (tmp_path / "checkpoints" / "2").mkdir()  # a folder without facts
    assert store.steps() == [1]


def test_another_shape_is_refused_with_both_sides(tmp_path: Path) -> None:
    path = store_in(tmp_path).save(1, tensors=tensors(), facts={})
    with pytest.raises(CheckpointError, match=r"a.weight: \[2, 3\] in the checkpoint, \[3, 3\] in this run"):
        load_tensors(path, into={"a.weight": torch.zeros(3, 3)})


def test_an_absent_tensor_is_refused_by_name(tmp_path: Path) -> None:
    path = store_in(tmp_path).save(1, tensors=tensors(), facts={})
    with pytest.raises(CheckpointError, match=r"b\.weight: absent from the checkpoint"):
        load_tensors(path, into={"b.weight": torch.zeros(1)})


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from dinov2.checkpoint.store import CheckpointStore
from dinov2.errors import CheckpointError
store = CheckpointStore(folder=Path(sys.argv[1]) / "checkpoints", keep_last=2)
store.save(1, tensors={"a": torch.zeros(10)}, facts={})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.save(2, tensors={"a": torch.zeros(1 << 22)}, facts={})
except CheckpointError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_leaves_the_earlier_checkpoint_and_says_so(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: writing fails in the same place with the same kind of error."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stdout
    assert "continue from the last of them" in done.stdout
    store = store_in(tmp_path)
    assert store.steps() == [1]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["1"], "nothing half-written stays"


def save_on_every_rank(world, folder: str) -> list[int]:
    store = CheckpointStore(folder=Path(folder), keep_last=2)
    store.save(5, tensors={"same": torch.ones(4), "counter": torch.tensor(7.0)}, facts={"size": world.size})
    target = {"same": torch.zeros(4)}
    load_tensors(store.path(5), into=target)
    assert target["same"].tolist() == [1.0] * 4
    return store.steps()


def test_a_checkpoint_of_two_processes_is_read_by_one(tmp_path: Path) -> None:
    assert on_ranks(save_on_every_rank, str(tmp_path)) == [[5], [5]]
    target = {"same": torch.zeros(4), "counter": torch.tensor(0.0)}
    load_tensors(tmp_path / "5", into=target)
    assert target["same"].tolist() == [1.0] * 4
    assert float(target["counter"]) == 7.0
