import shutil
from pathlib import Path

import pytest

from dinov2.config.schema import Data
from dinov2.data.source import DatasetString, open_pictures, parse_dataset_string
from dinov2.errors import ManifestError
from dinov2.manifest import Manifest, from_rows


@pytest.fixture
def shelf(tmp_path: Path, films: Path) -> Path:
    """A folder with 24 pictures and a manifest: two datasets, two views, two splits."""
    shutil.copytree(films, tmp_path / "shelf")
    rows = [
        {
            "image": f"{i:03d}.png",
            "image_id": f"id{i}",
            "dataset": "NIH" if i < 12 else "CheXpert",
            "view": "PA" if i % 2 else "AP",
            "split": "test" if i % 4 == 3 else "train",
        }
        for i in range(24)
    ]
    from_rows(rows, root=tmp_path).write(tmp_path / "shelf" / "manifest.parquet")
    return tmp_path / "shelf"


def open_(path: object, *, seed: int = 0, **data: object) -> Manifest:
    return open_pictures(str(path), data=Data(**data), seed=seed)


def images(manifest: Manifest) -> list[str]:
    return manifest.table.column("image").to_pylist()


def test_a_folder_its_manifest_and_the_public_string_give_the_same_pictures(shelf):
    by_file = images(open_(shelf / "manifest.parquet"))
    assert len(by_file) == 24
    assert images(open_(shelf)) == by_file
    assert images(open_(f"Anything:root={shelf}")) == by_file


def test_a_folder_without_a_manifest_is_its_pictures(films):
    assert images(open_(films)) == [f"{i:03d}.png" for i in range(24)]


def test_the_name_in_the_string_picks_the_dataset_where_the_manifest_knows_it(shelf):
    assert images(open_(f"nih:root={shelf}")) == [f"{i:03d}.png" for i in range(12)]


def test_split_and_view_in_the_string_filter_the_rows(shelf):
    assert len(open_(f"NIH:split=TRAIN:root={shelf}")) == 9
    assert len(open_(f"NIH:split=TRAIN:root={shelf}:view=AP")) == 6


def test_a_split_that_is_a_folder_of_the_root_is_that_folder(tmp_path, films):
    shutil.copytree(films, tmp_path / "train")
    found = open_(f"ImageNet:split=TRAIN:root={tmp_path}")
    assert len(found) == 24
    assert found.path(0).parent == tmp_path / "train"


def test_extra_names_a_manifest_that_lies_apart_from_its_pictures(shelf, tmp_path):
    (tmp_path / "lists").mkdir()
    shutil.move(shelf / "manifest.parquet", tmp_path / "lists" / "manifest.parquet")
    assert len(open_(f"NIH:root={shelf}:extra={tmp_path / 'lists'}")) == 12


def test_an_extra_without_a_manifest_is_said_to_be_unused(films, tmp_path, caplog):
    assert len(open_(f"ImageNet:root={films}:extra={tmp_path}")) == 24
    assert "holds no manifest and is not used" in caplog.text


def test_a_root_may_hold_colons_and_equal_signs():
    parsed = parse_dataset_string("X:root=/data/a:b=c/d:split=TRAIN")
    assert parsed == DatasetString(name="X", root="/data/a:b=c/d", split="TRAIN")


def test_filters_of_the_data_section_narrow_one_another(shelf):
    assert len(open_(shelf, splits=("train",))) == 18
    assert len(open_(shelf, splits=("train",), views=("PA",), datasets=("CheXpert",))) == 3


def test_include_and_exclude_lists_name_files_or_ids(shelf, tmp_path):
    (tmp_path / "in.csv").write_text("image\n003.png\n004.png\n005.png\n")
    (tmp_path / "out.csv").write_text("id4\n")
    found = open_(shelf, include=str(tmp_path / "in.csv"), exclude=str(tmp_path / "out.csv"))
    assert images(found) == ["003.png", "005.png"]


def test_a_fraction_is_the_same_pictures_for_the_same_seed(shelf):
    half = images(open_(shelf, fraction=0.5))
    assert len(half) == 12
    assert half == images(open_(shelf, fraction=0.5))
    assert half != images(open_(shelf, fraction=0.5, seed=1))


def test_a_filter_that_leaves_nothing_is_named(shelf, tmp_path):
    (tmp_path / "in.csv").write_text("image\nelsewhere.png\n")
    with pytest.raises(ManifestError, match=r"data.include=.*in.csv leaves none of 24 pictures"):
        open_(shelf, include=str(tmp_path / "in.csv"))
    with pytest.raises(ManifestError, match=r"no row has view in \['LATERAL'\]; the views present are \['AP', 'PA'\]"):
        open_(shelf, views=("LATERAL",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/nowhere/at/all", "no such file or folder"),
        ("/nowhere/manifest.parquet", "no such manifest"),
        ("ImageNet:split=TRAIN", "gives no root to look in"),
        ("ImageNet:spilt=TRAIN", "'spilt=TRAIN' is none of root=, .* Did you mean split?"),
        ("ImageNet:root=/nowhere", "no such folder"),
    ],
)
def test_a_path_that_names_nothing_is_refused_with_what_to_give(text, message):
    with pytest.raises(ManifestError, match=message):
        open_(text)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no picture in this folder"):
        open_(tmp_path)


def test_a_fraction_of_nothing_is_refused(shelf):
    with pytest.raises(ManifestError, match=r"data.fraction=0.0 is a share"):
        open_(shelf, fraction=0.0)


def test_files_that_the_manifest_names_and_the_disk_lacks_are_told(shelf):
    (shelf / "005.png").unlink()
    (shelf / "006.png").unlink()
    with pytest.raises(
        ManifestError, match=r"2 of 24 pictures looked for are not on disk; the first is .*005.png, row 5"
    ):
        open_(shelf)
