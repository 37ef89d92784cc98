"""A manifest is gone through in its order, by workers that end with the iterator."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinov2.encoder import Encoder
from dinov2.errors import ConfigError, ManifestError
from dinov2.manifest import Manifest, from_rows
from tests.encoder.made import noise, small_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return small_encoder(tmp_path_factory.mktemp("weights"))


def pictures(folder: Path, count: int) -> Manifest:
    """Of several sizes, every third in colour."""
    rows = []
    for number in range(count):
        shape = (80 + number, 75, 3) if number % 3 == 2 else (80, 75 + number)
        Image.fromarray(noise(*shape, seed=number)).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "image_id": f"film {number}"})
    return from_rows(rows, root=folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_comes_once_in_order(encoder: Encoder, tmp_path: Path, workers: int) -> None:
    manifest = pictures(tmp_path, 7)
    found = list(encoder.over(manifest, batch_size=3, workers=workers))
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert np.concatenate([batch.rows for batch in found]).tolist() == list(range(7))
    assert [name for batch in found for name in batch.image_ids] == [f"film {number}" for number in range(7)]
    cls, patches = encoder([tmp_path / f"{number}.png" for number in range(7)])
    assert_close(torch.cat([batch.cls for batch in found]), cls, atol=1e-5, rtol=1e-5)
    assert_close(torch.cat([batch.patches for batch in found]), patches, atol=1e-5, rtol=1e-5)


def test_a_manifest_may_be_a_file(encoder: Encoder, tmp_path: Path) -> None:
    pictures(tmp_path, 2).write(tmp_path / "manifest.csv")
    (batch,) = encoder.over(str(tmp_path / "manifest.csv"))
    assert batch.patches.shape == (2, 64, 5, 5)
    with pytest.raises(ManifestError, match=r"absent\.parquet: no such manifest"):
        list(encoder.over(tmp_path / "absent.parquet"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_names_its_row(encoder: Encoder, tmp_path: Path, workers: int) -> None:
    manifest = pictures(tmp_path, 4)
    (tmp_path / "2.png").unlink()
    with pytest.raises(ManifestError, match=r"^row 2: .*2\.png: No such file"):
        list(encoder.over(manifest, batch_size=2, workers=workers))
    Image.new("RGBA", (90, 90)).save(tmp_path / "2.png")
    with pytest.raises(ManifestError, match=r"^row 2: .*2\.png: has transparency"):
        list(encoder.over(manifest, batch_size=2, workers=workers))


def test_closing_the_iterator_ends_its_workers(encoder: Encoder, tmp_path: Path) -> None:
    batches = encoder.over(pictures(tmp_path, 12), batch_size=1, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    patience = time.monotonic() + 30
    while multiprocessing.active_children() and time.monotonic() < patience:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("words", [{"batch_size": 0}, {"workers": -1}])
def test_numbers_that_make_no_sense_are_refused(encoder: Encoder, tmp_path: Path, words: dict) -> None:
    with pytest.raises(ConfigError, match=r"give 1 or more, and 0 or more"):
        list(encoder.over(pictures(tmp_path, 1), **words))


def test_a_batch_keeps_no_gradients_and_the_state_of_chance_is_left_alone(encoder: Encoder, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    (batch,) = encoder.over(pictures(tmp_path, 2), workers=1)
    assert not batch.cls.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
