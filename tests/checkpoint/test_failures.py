"""What a save leaves behind when it cannot be finished: a full disk, a lost process, a killed one."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

from dinov2.checkpoint import commit
from dinov2.checkpoint.reading import newest_sound
from dinov2.checkpoint.store import CheckpointStore, load_tensors
from dinov2.errors import CheckpointError
from tests.distributed.processes import on_ranks

FULL_DISK = """
import json, resource, sys
from pathlib import Path
import torch
from dinov2.checkpoint.store import CheckpointStore
from dinov2.errors import CheckpointError

def limit(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

def attempt(name, asynchronous, num_values, largest_file):
    store = CheckpointStore(Path(sys.argv[1]) / name, asynchronous=asynchronous)
    store.save(1, tensors={"a": torch.zeros(10)}, facts={})
    store.wait()
    limit(largest_file)
    try:
        store.save(2, tensors={"a": torch.zeros(num_values)}, facts={"long": "x" * 5000})
        while asynchronous and store.failure() is None:
            pass
        store.wait()
        return "nothing was raised"
    except CheckpointError as error:
        limit(resource.RLIM_INFINITY)
        store.save(3, tensors={"a": torch.ones(10)}, facts={})
        store.close()
        return str(error)

told = {}
for asynchronous in (False, True):
    told[f"tensors {asynchronous}"] = attempt(f"tensors {asynchronous}", asynchronous, 1 << 22, 1 << 20)
    told[f"facts {asynchronous}"] = attempt(f"facts {asynchronous}", asynchronous, 10, 3000)
print(json.dumps(told))
"""


def test_a_full_disk_leaves_the_earlier_checkpoint_and_says_so(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: writing fails in the same place with the same kind of error."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 4
    for name, words in told.items():
        folder = tmp_path / name
        assert words.startswith(f"{folder / '2'}: the checkpoint of step 2 could not be written: the disk is full")
        assert "continue from the last of them" in words
        assert sorted(p.name for p in folder.iterdir()) == ["1", "3", "latest"], "nothing half-written stays"
        for step, value in ((1, 0.0), (3, 1.0)):
            into = {"a": torch.full((10,), 7.0)}
            load_tensors(folder / str(step), into=into)
            assert into["a"].tolist() == [value] * 10


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from dinov2.checkpoint.reading import newest_sound, read_pointer
from dinov2.checkpoint.store import CheckpointStore, load_tensors

SIZE = 6_000_000
folder = Path(sys.argv[1])
state = lambda step: {"a": torch.full((SIZE,), float(step)), "b": torch.full((3,), float(step))}

def save_next(asynchronous):
    store = CheckpointStore(folder, asynchronous=asynchronous)
    step = (store.steps() or [0])[-1] + 1
    store.save(step, tensors=state(step), facts={"position": step}, score=-float(step))
    store.wait()

started = time.perf_counter()
save_next(False)
took = time.perf_counter() - started
reached = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        save_next(number % 2 == 0)
        os._exit(0)
    time.sleep(took * 1.2 * (number + 0.5) / int(sys.argv[2]))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    newest, passed_over = newest_sound(folder)
    assert passed_over == [], passed_over
    step = int(newest.name)
    into = {name: torch.zeros_like(tensor) for name, tensor in state(0).items()}
    load_tensors(newest, into=into)
    assert all((tensor == step).all() for tensor in into.values())
    pointed = int(read_pointer(folder / "latest"))
    assert pointed <= step and (folder / str(pointed) / "facts.json").is_file()
    reached.append(step)
print(reached)
CheckpointStore(folder)
assert not list(folder.glob(".partial*"))
"""


def test_a_process_killed_at_any_point_of_a_save_leaves_whole_checkpoints(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "checkpoints"), "12"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr


LOST = """
import os, sys
from pathlib import Path
import torch, torch.distributed as dist
from dinov2.checkpoint.store import CheckpointStore
from dinov2.errors import CheckpointError

folder = Path(sys.argv[1])
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
store = CheckpointStore(folder / "checkpoints", asynchronous=True, timeout_seconds=60)
store.save(1, tensors={"a": torch.ones(4)}, facts={})
store.wait()
if rank == 1:
    os._exit(9)
store.save(2, tensors={"a": torch.ones(4)}, facts={})
try:
    store.wait()
except CheckpointError as error:
    print(error)
os._exit(0)
"""


def test_a_process_that_is_lost_while_saving_is_told_and_nothing_hangs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "step 2 could not be written: another process of the run ended" in done.stdout, done.stdout + done.stderr
    assert newest_sound(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "1", [])


def fail_in_turns(world, folder: str) -> list[str]:
    """Everything that can go wrong on one process only; each is told to both."""
    told = []
    path = Path(folder)
    commit.VISIBLE_SECONDS = 0.0

    def attempt(store: CheckpointStore, step: int, tensors: dict[str, torch.Tensor]) -> None:
        try:
            store.save(step, tensors=tensors, facts={})
            store.wait()
            told.append("")
        except CheckpointError as error:
            told.append(str(error))

    big = {name: torch.ones(1 << 20) for name in "abcd"}
    for asynchronous in (False, True):
        store = CheckpointStore(path, asynchronous=asynchronous)
        if world.rank == 1:  # a disk that is full for one of them
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        attempt(store, 1, big)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        attempt(store, 1, big)
        store.close()
    store = CheckpointStore(path, asynchronous=True)
    attempt(store, 2, big if world.rank == 0 else big | {"a": torch.ones(1 << 20, device="meta")})  # cannot be copied
    told.append(str(store.steps()))
    store.close()
    store = CheckpointStore(path / f"disk of {world.rank}")  # not the same folder for both
    attempt(store, 1, big)
    return told


def test_what_fails_on_one_process_is_told_to_all_and_leaves_what_was_there(tmp_path: Path) -> None:
    told, also = on_ranks(fail_in_turns, str(tmp_path))
    assert told[:-1] == also[:-1]
    full, then, full_behind, then_behind, uncopied, steps, _ = told
    for words in (full, full_behind):
        assert "the disk is full on process 1" in words
    assert then == then_behind == ""
    assert "step 2 could not be written on process 1" in uncopied
    assert steps == "[1]"
    assert "must lie on a file system that all nodes share" in told[-1]
    assert "must lie on a file system that all nodes share" in also[-1]
    assert not list(tmp_path.glob(".partial*"))
