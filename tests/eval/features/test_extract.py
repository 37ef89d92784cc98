"""Features are made once, in order, by any number of processes, and found again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinov2.distributed import World
from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones import Backbone, DinoBackbone, Tokens
from dinov2.eval.examples import Examples
from dinov2.eval.features import Labelled, extract
from dinov2.eval.features.extract import share_of
from dinov2.eval.pictures import batches, preparation_for
from tests.distributed.processes import on_ranks
from tests.eval.pictures.made import examples_of, noise, small_backbone


def extracted(examples: Examples, folder: Path, *, backbone: Backbone | None = None, **changed: Any) -> Labelled:
    chosen = backbone or small_backbone()
    arguments: dict[str, Any] = {
        "folder": folder,
        "blocks": 2,
        "preparation": preparation_for(chosen.traits, size=changed.pop("size", None), fit="crop"),
        "batch_size": 4,
        "workers": 0,
        "device": "cpu",
    }
    return extract(chosen, examples, **(arguments | changed))


class Constant(Backbone):
    """Says the mean of the picture; NaN for pictures below a mean."""

    def __init__(self, *, darkest: float = -1e9) -> None:
        super().__init__()
        self.traits = replace(small_backbone().traits, fingerprint=f"constant {darkest}", embed_dim=2, depth=1)
        self.darkest = darkest

    def layers(self, pictures: torch.Tensor, n: int) -> list[Tokens]:
        mean = pictures.mean(dim=(1, 2, 3))
        mean = torch.where((mean < self.darkest) & (pictures.std(dim=(1, 2, 3)) > 0), torch.nan, mean)
        return [Tokens(cls=torch.stack([mean, -mean], dim=1), patches=None, grid=None)] * n

    def parts(self) -> list[list[tuple[str, torch.nn.Parameter]]]:
        raise ValueError("no order")


def test_features_are_those_of_the_backbone_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    examples, backbone = examples_of(noise(7)), small_backbone()
    labelled = extracted(examples, tmp_path, patches=True)
    preparation = preparation_for(backbone.traits, size=None, fit="crop")
    (batch,) = batches(examples, preparation=preparation, batch_size=7, workers=0)
    with torch.no_grad():
        first, last = backbone.layers(batch.normalised("cpu"), 2)
    features = labelled.features
    assert last.patches is not None
    assert first.patches is not None
    assert features.patches is not None
    assert features.pooled is not None
    np.testing.assert_allclose(features.cls[:, 0], first.cls, atol=1e-5)
    np.testing.assert_allclose(features.cls[:, 1], last.cls, atol=1e-5)
    np.testing.assert_allclose(features.pooled[:, 0], first.patches.mean(dim=1), atol=1e-5)
    np.testing.assert_allclose(features.patches[:], last.patches, atol=1e-5)
    assert features.grid == (2, 2)


def test_a_second_run_finds_the_features_and_asks_no_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(noise(5))
    first = extracted(examples, tmp_path)
    monkeypatch.delattr(DinoBackbone, "layers")
    again = extracted(examples, tmp_path)
    np.testing.assert_array_equal(first.features.cls, again.features.cls)
    assert len(list(tmp_path.iterdir())) == 1


def test_fewer_blocks_are_found_in_features_of_more(tmp_path: Path) -> None:
    examples = examples_of(noise(5))
    wide = extracted(examples, tmp_path, blocks=3, patches=True)
    narrow = extracted(examples, tmp_path, blocks=1)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(narrow.features.cls[:, 0], wide.features.cls[:, 2])
    assert narrow.features.patches is None


@pytest.mark.parametrize("change", ["weights", "size", "pictures", "order", "precision"])
def test_whatever_changes_the_numbers_makes_features_anew(change: str, tmp_path: Path) -> None:
    examples = examples_of(noise(5))
    before = extracted(examples, tmp_path)
    if change == "weights":
        after = extracted(examples, tmp_path, backbone=small_backbone(seed=1))
    elif change == "size":
        after = extracted(examples, tmp_path, size=42)
    elif change == "pictures":
        after = extracted(examples_of(noise(5, seed=1), name="others"), tmp_path)
    elif change == "precision":
        after = extracted(examples, tmp_path, precision="bf16")
    else:
        after = extracted(examples.take([4, 3, 2, 1, 0]), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.array_equal(before.features.cls, after.features.cls)


def test_a_picture_file_that_was_replaced_is_noticed_without_its_hash(tmp_path: Path) -> None:
    pictures = noise(2)
    examples = examples_of(pictures, root=tmp_path)
    table = examples.manifest.table.drop_columns(["sha256"])
    examples = replace(examples, manifest=replace(examples.manifest, table=table))
    (tmp_path / "films0.png").write_bytes(b"one")
    extracted(examples, tmp_path / "kept")
    (tmp_path / "films0.png").write_bytes(b"another")
    extracted(examples, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_half_written_folder_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    examples = examples_of(noise(9))
    with pytest.raises(ManifestError, match="row 8"):
        extracted(examples_of(noise(9), unreadable=[8]), tmp_path)
    assert list(tmp_path.iterdir()) == []
    whole = np.array(extracted(examples, tmp_path).features.cls)
    (folder,) = tmp_path.iterdir()
    (folder / "features.json").unlink()
    np.save(folder / "cls.npy", np.zeros((9, 2, 16), dtype=np.float32))
    np.testing.assert_array_equal(extracted(examples, tmp_path).features.cls, whole)
    assert json.loads((folder / "features.json").read_text())["num_rows"] == 9


def test_damaged_features_say_what_to_do(tmp_path: Path) -> None:
    examples = examples_of(noise(3))
    extracted(examples, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "cls.npy").write_bytes(b"nothing")
    with pytest.raises(ManifestError, match=r"damaged.*Remove the folder"):
        extracted(examples, tmp_path)


def test_features_that_are_not_finite_name_the_picture(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"films, row 2: features of /films/films2\.png.*not finite in fp32"):
        extracted(examples_of(noise(3)), tmp_path, backbone=Constant(darkest=-1.1), blocks=1)


def test_a_backbone_without_patch_tokens_has_no_pooled_ones(tmp_path: Path) -> None:
    labelled = extracted(examples_of(noise(3)), tmp_path, backbone=Constant(), blocks=1)
    assert labelled.features.pooled is None
    with pytest.raises(ConfigError, match="has no patch tokens"):
        extracted(examples_of(noise(3)), tmp_path, backbone=Constant(), blocks=1, patches=True)


def test_a_batch_size_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--batch-size 0"):
        extracted(examples_of(noise(3)), tmp_path, batch_size=0)


def test_more_blocks_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 blocks asked of small-0, which gives 1 to 3"):
        extracted(examples_of(noise(3)), tmp_path, blocks=4)


def test_half_precision_is_stored_in_float32_and_patches_in_float16(tmp_path: Path) -> None:
    examples = examples_of(noise(3))
    half = extracted(examples, tmp_path, precision="bf16", patches=True).features
    full = extracted(examples, tmp_path, patches=True).features
    assert half.patches is not None
    assert full.patches is not None
    assert (half.cls.dtype, half.patches.dtype, full.patches.dtype) == (np.float32, np.float16, np.float32)
    np.testing.assert_allclose(half.cls, full.cls, atol=0.15)


def test_a_batch_of_one_picture_and_other_batch_sizes_give_the_same_features(tmp_path: Path) -> None:
    examples = examples_of(noise(5))
    together = extracted(examples, tmp_path / "4").features
    for batch_size in (1, 2):
        one = extracted(examples, tmp_path / f"{batch_size}", batch_size=batch_size).features
        np.testing.assert_allclose(one.cls, together.cls, atol=1e-5)


def _features_of_rank(world: World, folder: Path) -> tuple[list[int], bytes, int]:
    told: list[int] = []
    labelled = extracted(
        examples_of(noise(23)), folder, world=world, advance=told.append, patches=True, blocks=3, workers=1
    )
    assert labelled.features.patches is not None
    whole = [labelled.features.cls, labelled.features.pooled, labelled.features.patches[:]]
    return list(labelled.features.cls.shape), b"".join(np.asarray(part).tobytes() for part in whole), sum(told)


def test_two_processes_give_the_features_of_one_bit_for_bit(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
        shape, expected, count = _features_of_rank(alone, tmp_path / "one")
    finally:
        torch.set_num_threads(before)
    first, second = on_ranks(_features_of_rank, tmp_path / "two")
    assert first[0] == second[0] == shape == [23, 3, 16]
    assert first[1] == second[1] == expected
    assert first[2] + second[2] == count == 23
    assert min(first[2], second[2]) > 0
    assert len(list((tmp_path / "two").iterdir())) == 1


def _refusal_of_rank(world: World, folder: Path) -> str:
    try:
        extracted(examples_of(noise(23), unreadable=[22]), folder, world=world)
    except ManifestError as error:
        return str(error)
    return ""


def test_a_picture_that_one_process_cannot_read_stops_all_of_them(tmp_path: Path) -> None:
    first, second = on_ranks(_refusal_of_rank, tmp_path)
    assert "row 22" in first
    assert first == second
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_of_processes_are_whole_batches_and_cover_every_row_once(size: int) -> None:
    worlds = [World(rank=rank, size=size, local_rank=rank, device=torch.device("cpu")) for rank in range(size)]
    shares = [share_of(23, batch_size=4, world=world) for world in worlds]
    assert np.concatenate(shares).tolist() == list(range(23))
    assert all(len(share) == 0 or share[0] % 4 == 0 for share in shares)
