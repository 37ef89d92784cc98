import shutil
from pathlib import Path

import pytest

from dinov2.errors import ManifestError
from dinov2.layouts import LAYOUTS, Built, build
from dinov2.manifest import COLUMNS, read
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.intake.sources import iter_sources
from dinov2.preprocess.intake.table import read_table
from tests.layouts import copies

COPIES = {
    "mimic-cxr": lambda root: copies.mimic(root, jpg=False),
    "mimic-cxr-jpg": lambda root: copies.mimic(root, jpg=True),
    "chexpert": copies.chexpert,
    "nih": copies.nih,
    "padchest": copies.padchest,
    "brax": copies.brax,
    "brax-png": copies.brax,
    "vindr-cxr": copies.vindr,
    "vindr-pcxr": lambda root: copies.vindr(root, tables=".", reader="rad_ID"),
}


def rows(built: Built) -> list[dict]:
    return built.manifest.table.to_pylist()


def test_every_layout_has_a_copy_to_be_tried_on():
    assert set(COPIES) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_picture_of_a_layout_is_on_disk_and_its_manifest_can_be_written(tmp_path, name):
    built = build(name, COPIES[name](tmp_path / "set"))
    assert all(built.manifest.path(row).is_file() for row in range(len(built.manifest)))
    assert built.manifest.table.column_names[: len(COLUMNS)] == list(COLUMNS)
    assert not built.manifest.table.column("image_id").null_count
    assert len(set(built.manifest.table.column("image_id").to_pylist())) == len(built.manifest)
    for form in ("parquet", "csv"):
        built.manifest.write(tmp_path / "set" / f"m.{form}")
        again = read(tmp_path / "set" / f"m.{form}")
        assert again.table.column("patient").to_pylist() == built.manifest.table.column("patient").to_pylist()
    assert LAYOUTS[name].summary
    assert all(column.startswith("label_") for column in built.manifest.table.column_names if "finding" in column)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_table_is_named_with_the_place_where_it_ships(tmp_path, name):
    root = COPIES[name](tmp_path / "set")
    needed = next(table for table in LAYOUTS[name].tables if not table.optional)
    for path in [path for path in root.rglob("*") if path.name.removesuffix(".gz") in needed.names]:
        path.unlink()
    with pytest.raises(ManifestError) as caught:
        build(name, root)
    assert needed.names[0] in str(caught.value)
    assert needed.ships in str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_table_that_lacks_a_column_is_refused(tmp_path, name):
    root = COPIES[name](tmp_path / "set")
    needed = next(table for table in LAYOUTS[name].tables if not table.optional)
    (path,) = [path for path in root.rglob("*") if path.name.removesuffix(".gz") in needed.names]
    copies.write(path, ["something,else", "1,2"])
    with pytest.raises(ManifestError, match="are missing; present are something, else"):
        build(name, root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_in_another_place_and_of_another_kind_are_found(tmp_path, name):
    root = COPIES[name](tmp_path / "set")
    original = build(name, root)
    for row, image in enumerate(original.manifest.table.column("image").to_pylist()):
        target = tmp_path / "resized/half" / Path(image).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original.manifest.path(row), target)
    copied = build(name, root, images=tmp_path / "resized")
    assert copied.manifest.root == tmp_path / "resized"
    assert len(copied.manifest) == len(original.manifest)
    assert all(image.startswith("half/") for image in copied.manifest.table.column("image").to_pylist())
    kept = set(original.manifest.table.column_names) - {"image", "source"}
    assert copied.manifest.table.select(sorted(kept)) == original.manifest.table.select(sorted(kept))
    assert copied.num_unnamed == 0


def test_mimic_joins_view_and_split_by_film_and_labels_by_study(tmp_path):
    for name, jpg, gz in (("mimic-cxr", False, True), ("mimic-cxr-jpg", True, False)):
        built = build(name, copies.mimic(tmp_path / name, jpg=jpg, gz=gz))
        found = {row["image_id"]: row for row in rows(built)}
        assert set(found) == {"02aa-1", "174f-2"}
        assert built.num_absent == 1
        assert found["02aa-1"]["image"] == f"files/p10/p10000032/s50414267/02aa-1.{'jpg' if jpg else 'dcm'}"
        assert (found["02aa-1"]["view"], found["174f-2"]["view"]) == ("PA", "LATERAL")
        for row in found.values():
            assert (row["dataset"], row["patient"], row["study"]) == ("mimic-cxr", "10000032", "50414267")
            assert row["split"] == "train"
            assert (row["label_no_finding"], row["label_cardiomegaly"], row["label_lung_opacity"]) == (1, -1, 0)
            assert row["label_enlarged_cardiomediastinum"] is None
            assert row["label_negbio_cardiomegaly"] == -1


def test_rows_without_a_picture_can_be_kept(tmp_path):
    built = build("mimic-cxr-jpg", copies.mimic(tmp_path, jpg=True), keep_absent=True)
    absent = next(row for row in rows(built) if row["image_id"] == "0007-3")
    assert absent["image"] == "files/p11/p11000033/s50000007/0007-3.jpg"
    assert absent["view"] is None
    assert absent["split"] == "validate"
    assert built.num_absent == 1


def test_optional_tables_that_are_not_there_are_told(tmp_path):
    root = copies.mimic(tmp_path, jpg=False)
    for path in root.glob("mimic-cxr-*"):
        path.unlink()
    built = build("mimic-cxr", root)
    assert rows(built)[0]["split"] is None
    assert len(built.remarks) == 4
    assert "mimic-cxr-2.0.0-split.csv" in " ".join(built.remarks)
    assert "MIMIC-CXR-JPG" in " ".join(built.remarks)


@pytest.mark.parametrize("release", ["CheXpert-v1.0-small", "CheXpert-v1.0"])
def test_chexpert_may_be_given_by_its_own_folder_or_by_the_one_above(tmp_path, release):
    above = copies.chexpert(tmp_path, release=release)
    own = rows(build("chexpert", above / release))
    assert [row["image"] for row in rows(build("chexpert", above))] == [f"{release}/{row['image']}" for row in own]
    assert [row["view"] for row in own] == ["AP", "LATERAL", "LL", "PA"]
    assert [row["split"] for row in own] == ["train", "train", "train", "valid"]
    assert [(row["sex"], row["age"]) for row in own] == [("F", 68), ("F", 68), (None, 0), ("M", 73)]
    assert own[0]["image_id"] == "patient00001_study1_view1_frontal"
    assert (own[0]["patient"], own[0]["study"]) == ("patient00001", "patient00001_study1")


@pytest.mark.parametrize("release", ["v2020", "2017"])
def test_nih_pictures_are_found_in_their_twelve_folders_and_its_lists_are_the_split(tmp_path, release):
    found = rows(build("nih", copies.nih(tmp_path, release=release)))
    assert [row["image"].split("/")[0] for row in found] == ["images_001", "images_001", "images_002"]
    assert [row["split"] for row in found] == ["train_val", "train_val", "test"]
    assert [row["age"] for row in found] == [58, None, 60], "414 years are a typing error"
    assert [row["label_no_finding"] for row in found] == [0, 1, 0]
    assert (found[0]["label_cardiomegaly"], found[0]["label_pleural_thickening"]) == (1, 1)
    assert [row["patient"] for row in found] == ["1", "1", "13"]
    assert len({row["study"] for row in found}) == 3


def test_padchest_lists_become_columns_and_no_date_is_kept(tmp_path):
    built = build("padchest", copies.padchest(tmp_path))
    first, second, third = rows(built)
    assert (first["label_pulmonary_fibrosis"], first["label_nodule"], first["label_normal"]) == (1, 1, 0)
    assert (second["label_normal"], second["label_nodule"]) == (1, 0)
    assert {third[column] for column in third if column.startswith("label_")} == {None}
    assert [row["view"] for row in (first, second, third)] == ["PA", "LATERAL", "AP"]
    assert (first["age"], third["age"], third["projection"], third["sex"]) == (84, None, "AP_horizontal", "O")
    assert not any("Date" in column or "Birth" in column for column in built.manifest.table.column_names)


def test_brax_gives_its_dicoms_or_its_pngs(tmp_path):
    root = copies.brax(tmp_path)
    (dicom,), (png,) = (rows(build(name, root)) for name in ("brax", "brax-png"))
    assert dicom["image"].endswith("image-1-2.dcm")
    assert png["image"].endswith("image-1-2.png")
    assert {**dicom, "image": 0, "source": 0} == {**png, "image": 0, "source": 0}
    assert (dicom["view"], dicom["age"], dicom["study"], dicom["label_lung_opacity"]) == ("LATERAL", 85, "ac_1", 0)


def test_vindr_labels_are_what_most_radiologists_said(tmp_path):
    found = {row["image_id"]: row for row in rows(build("vindr-cxr", copies.vindr(tmp_path)))}
    assert list(found) == ["aa11", "bb22", "cc33"]
    assert (found["aa11"]["label_nodule_mass"], found["aa11"]["label_cardiomegaly"]) == (1, 0)
    assert found["aa11"]["label_other_disease"] == 0
    assert found["bb22"]["label_no_finding"] == 1
    assert found["cc33"]["label_cardiomegaly"] == 1
    assert [row["split"] for row in found.values()] == ["train", "train", "test"]


def test_what_cannot_be_built_is_said(tmp_path):
    with pytest.raises(ManifestError, match="no layout is called mimic; there are mimic-cxr"):
        build("mimic", tmp_path)
    with pytest.raises(ManifestError, match="no such folder"):
        build("nih", tmp_path / "nowhere")
    copies.nih(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(ManifestError, match=r"none of the 3 pictures of nih is there \(looked for \.png or"):
        build("nih", tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").rename(tmp_path / "Data_Entry_2017_v2020.csv.gz")
    with pytest.raises(ManifestError, match="cannot be read"):
        build("nih", tmp_path)


def test_a_label_that_is_no_number_is_refused_without_being_quoted(tmp_path):
    path = copies.brax(tmp_path) / "master_spreadsheet_update.csv"
    path.write_text(path.read_text().replace("-1.0", "SECRET"))
    with pytest.raises(ManifestError, match=r"cannot be read \(In CSV column #\d+\)") as caught:
        build("brax", tmp_path)
    assert "SECRET" not in str(caught.value)


def test_a_built_manifest_is_a_list_for_the_conversion_and_its_labels_travel(tmp_path):
    root = copies.mimic(tmp_path, jpg=False)
    built = build("mimic-cxr", root)
    built.manifest.write(root / "list.parquet")
    films = [one for one in iter_sources(root / "list.parquet") if isinstance(one, Source)]
    assert [film.path.is_file() for film in films] == [True, True]
    table = read_table(root / "list.parquet")
    assert {"dataset", "patient", "study", "view", "split", "label_no_finding"} <= set(table.columns_kept)
    assert set(table.columns_left_out) == {"image_id", "source"}
    values = table.find(films[0].relative)
    assert (values["patient"], values["label_cardiomegaly"]) == ("10000032", -1)


def test_a_row_that_is_cut_is_left_out_and_told_without_its_cells(tmp_path):
    root = copies.brax(tmp_path)
    with (root / "master_spreadsheet_update.csv").open("a") as stream:
        stream.write("cut,SECRET\n")
    built = build("brax", root)
    assert len(built.manifest) == 1
    assert "1 rows" in built.remarks[0]
    assert "SECRET" not in built.remarks[0]
