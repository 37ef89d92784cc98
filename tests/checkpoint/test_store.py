"""One process: what is saved is loaded, at once and in the background; pointers; soundness."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from dinov2.checkpoint import store as store_module
from dinov2.checkpoint.reading import newest_sound
from dinov2.checkpoint.store import (
    KEEP_ALL,
    CheckpointStore,
    Retention,
    find_checkpoint,
    load_tensors,
    read_facts,
    tensor_names,
)
from dinov2.errors import CheckpointError

WAYS = pytest.mark.parametrize("asynchronous", [False, True], ids=["foreground", "background"])


def tensors(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": scale * torch.arange(6.0).view(2, 3), "a.step": torch.tensor(scale), "n": torch.arange(3)}


def loaded(path: Path) -> dict[str, torch.Tensor]:
    into = {name: torch.zeros_like(value) for name, value in tensors().items()}
    load_tensors(path, into=into)
    return into


def store_in(folder: Path, *, retention: Retention = KEEP_ALL, asynchronous: bool = False) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", retention=retention, asynchronous=asynchronous)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@WAYS
def test_what_was_saved_is_loaded(tmp_path: Path, asynchronous: bool) -> None:
    store = store_in(tmp_path, asynchronous=asynchronous)
    store.save(3, tensors=tensors(), facts={"position": 24}, files={"config.yaml": "a: 1\n"}, score=0.5)
    store.wait()
    assert store.finished() == [store.path(3)]
    assert store.finished() == []
    assert store.failure() is None
    torch.testing.assert_close(loaded(store.path(3)), tensors())
    facts = read_facts(store.path(3))
    assert (facts["step"], facts["position"], facts["score"]) == (3, 24, 0.5)
    assert (store.path(3) / "config.yaml").read_text() == "a: 1\n"
    assert tensor_names(store.path(3)) == {"a.weight", "a.step", "n"}
    assert names_in(tmp_path) == ["3", "best", "latest"]


def test_what_training_changes_after_a_save_in_the_background_is_not_written(tmp_path: Path) -> None:
    store = store_in(tmp_path, asynchronous=True)
    live, facts = tensors() | {"big": torch.ones(2_000_000)}, {"unreadable": {"a.png": 1}}
    for step in (1, 2):  # the second save uses the memory of the first again
        store.save(step, tensors=live, facts=facts)
        for tensor in live.values():
            tensor.add_(1)
        facts["unreadable"][f"{step}.png"] = 1
    store.wait()
    for step in (1, 2):
        expected = {name: value + step - 1 for name, value in tensors().items()}
        torch.testing.assert_close(loaded(store.path(step)), expected)
        into = {"big": torch.zeros(2_000_000)}
        load_tensors(store.path(step), into=into)
        assert torch.equal(into["big"], torch.full((2_000_000,), float(step)))
    assert list(read_facts(store.path(2))["unreadable"]) == ["a.png", "1.png"]
    store.close()


def test_the_facts_list_every_file_with_what_was_written(tmp_path: Path) -> None:
    import hashlib

    path = store_in(tmp_path).save(1, tensors=tensors(), facts={}, files={"notes.txt": "ä"})
    listed = read_facts(path)["files"]
    assert set(listed) == {file.name for file in path.iterdir()} - {"facts.json"}
    for name, one in listed.items():
        data = (path / name).read_bytes()
        assert one == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_store_that_is_told_only_how_many_to_keep_keeps_so_many(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, retention=Retention(keep_last=2))
    for step in (1, 2, 10):
        store.save(step, tensors=tensors(step), facts={})
    assert store.steps() == [2, 10]


@WAYS
def test_latest_and_best_lead_to_their_checkpoints(tmp_path: Path, asynchronous: bool) -> None:
    store = store_in(tmp_path, retention=Retention(keep_last=1, keep_best=1), asynchronous=asynchronous)
    for step, score in ((1, 0.2), (2, 0.9), (3, float("nan")), (4, 0.5)):
        store.save(step, tensors=tensors(step), facts={}, score=score)
    store.wait()
    assert store.steps() == [2, 4]
    assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "checkpoints" / "latest") == store.path(4)
    assert find_checkpoint(tmp_path / "checkpoints" / "best") == store.path(2)
    assert find_checkpoint(store.path(2)) == store.path(2)


def test_what_is_kept_survives_a_restart(tmp_path: Path) -> None:
    kept = Retention(keep_last=1, keep_every_steps=4, keep_best=2, mode="min")
    scores = {1: 5.0, 2: 1.0, 3: 4.0, 4: 9.0, 5: 2.0, 6: 3.0}
    for step, score in scores.items():
        store = store_in(tmp_path, retention=kept)  # a new one each time, as after a kill
        store.save(step, tensors=tensors(), facts={}, score=score)
    assert store.steps() == [2, 4, 5, 6]
    assert (tmp_path / "checkpoints" / "best").read_text() == "2\n"


def test_a_step_that_is_saved_again_replaces_what_was_there(tmp_path: Path) -> None:
    store = store_in(tmp_path, retention=Retention(keep_last=1))
    for step, scale in ((2, 1.0), (1, 2.0), (2, 3.0)):
        store.save(step, tensors=tensors(scale), facts={})
        torch.testing.assert_close(loaded(store.path(step)), tensors(scale))
    assert store.steps()[-1] == 2
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_leftovers_of_a_killed_run_go_at_the_next_start(tmp_path: Path) -> None:
    store_in(tmp_path).save(1, tensors=tensors(), facts={})
    (tmp_path / "checkpoints" / ".partial-2").mkdir()
    (tmp_path / "checkpoints" / ".partial-2" / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / "checkpoints" / ".partial-latest").write_text("2\n")
    (tmp_path / "checkpoints" / "2").mkdir()  # a folder without facts is no checkpoint
    assert store_in(tmp_path).steps() == [1]
    assert names_in(tmp_path) == ["1", "2", "latest"]


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


def test_a_text_file_cannot_take_the_name_of_another_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"facts\.json"):
        store_in(tmp_path).save(1, tensors=tensors(), facts={}, files={"facts.json": "{}"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: os.truncate(path / "__0_0.distcp", 100), "__0_0.distcp has 100 bytes"),
        (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp cannot be found"),
        (lambda path: (path / ".metadata").write_bytes(b"\x80nonsense"), "the list of its tensors"),
        (lambda path: (path / "facts.json").write_text("{"), "not a checkpoint of this package"),
    ],
    ids=["cut", "gone", "metadata", "facts"],
)
def test_the_newest_sound_checkpoint_is_found_and_what_is_passed_over_is_told(
    tmp_path: Path, damage: object, words: str
) -> None:
    store = store_in(tmp_path)
    for step in (1, 2):
        store.save(step, tensors=tensors(), facts={})
    damage(store.path(2))
    sound, passed_over = store.newest_sound()
    assert sound == store.path(1)
    assert len(passed_over) == 1
    assert words in passed_over[0]
    assert str(store.path(2)) in passed_over[0]
    with pytest.raises(CheckpointError, match="The newest that is all there is"):
        find_checkpoint(tmp_path)


def test_looking_for_a_sound_checkpoint_reads_no_tensor(tmp_path: Path) -> None:
    path = store_in(tmp_path).save(1, tensors=tensors(), facts={})
    data = path / "__0_0.distcp"
    data.write_bytes(bytes(data.stat().st_size))  # of the right size, and nothing else right
    assert newest_sound(tmp_path / "checkpoints") == (path, [])


@WAYS
def test_the_self_test_leaves_nothing_behind_where_all_is_well(tmp_path: Path, asynchronous: bool) -> None:
    store = store_in(tmp_path, asynchronous=asynchronous)
    state = tensors() | {"nan": torch.tensor([float("nan"), -0.0])}
    store.self_test(tensors=state, facts={"position": 0})
    assert store.finished() == []
    assert names_in(tmp_path) == []


def test_the_self_test_names_a_tensor_that_reads_back_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    real = store_module.agreed_differences

    def on_a_disk_that_forgets(checkpoint: Path, **rest: object) -> str:
        other = CheckpointStore(tmp_path / "other")
        shutil.rmtree(checkpoint)
        shutil.copytree(other.save(0, tensors=tensors(2.0), facts={}), checkpoint)
        return real(checkpoint, **rest)

    monkeypatch.setattr(store_module, "agreed_differences", on_a_disk_that_forgets)
    with pytest.raises(CheckpointError, match=r"reads back differently: a\.weight"):
        store.self_test(tensors=tensors(), facts={})
    assert names_in(tmp_path) == []


def test_facts_are_json_that_others_can_read(tmp_path: Path) -> None:
    path = store_in(tmp_path).save(1, tensors=tensors(), facts={"pair": (1, 2)}, score=float("inf"))
    facts = json.loads((path / "facts.json").read_text())
    assert facts["pair"] == [1, 2]
    assert facts["score"] is None
    assert facts["environment"]["torch"] == torch.__version__
