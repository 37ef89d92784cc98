"""Public datasets by name, each on a made-up copy of its layout."""

import csv
import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from dinov2.errors import ManifestError
from dinov2.eval.datasets import PUBLIC, open_data
from dinov2.eval.datasets.public.pickled import read_pickle
from tests.eval.datasets import copies

UNCERTAIN = -1.0


def everything(data):
    return {name: len(examples) for name, examples in data.splits()}


def files_of(root):
    return {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")}


def test_every_public_dataset_names_what_it_misses_in_an_empty_folder(tmp_path):
    for name in PUBLIC:
        with pytest.raises(ManifestError, match=rf"{name.removesuffix('Slice')}|is not below") as caught:
            open_data(f"{name}:root={tmp_path}", segmentation=name in ("MC", "Shenzhen"))
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(ManifestError, match=r"is no folder\. Give the folder that holds the dataset"):
        open_data(f"MC:root={tmp_path / 'absent'}")


@pytest.mark.parametrize("table", ["valid.csv", "val.csv"])
def test_chexpert_keeps_uncertain_labels_and_takes_frontal_films(tmp_path, table):
    root = copies.chexpert(tmp_path / "set", val_table=table)
    before = files_of(root)
    data = open_data(f"CheXpert:root={root}")
    assert everything(data) == {"train": 2, "val": 1, "test": 1}
    assert data.train.classes == ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    np.testing.assert_array_equal(data.train.labels, [[0, 1, 0, UNCERTAIN, 0]] * 2)
    assert data.train.group("sex").tolist() == ["F", "M"]
    assert data.train.reader.picture(1).shape == (12, 10)
    assert open_data(f"CheXpert:root={root}", labels=["Lung Opacity", "No Finding"]).train.labels.shape == (2, 2)
    assert len(open_data(None, train=f"CheXpert:root={root}:view=LATERAL").train) == 1
    assert files_of(root) == before


@pytest.mark.parametrize("form", ["original", "lists"])
def test_nih_has_14_findings_in_one_order_and_val_at_the_end_of_the_list(tmp_path, form):
    data = open_data(f"NIHChestXray:root={copies.nih(tmp_path, form=form)}")
    assert len(data.train.classes) == 14
    assert list(data.train.classes) == sorted(data.train.classes)
    assert "No Finding" not in data.train.classes
    assert {examples.classes for _, examples in data.splits()} == {data.train.classes}
    assert data.train.labels[0][
        [data.train.classes.index(name) for name in ("Effusion", "Mass", "Hernia")]
    ].tolist() == [1, 1, 0]
    assert everything(data) == (
        {"train": 12, "val": 4, "test": 2} if form == "lists" else {"train": 14, "val": 2, "test": 2}
    )
    again = open_data(f"NIHChestXray:root={tmp_path}", labels=["No Finding"])
    assert again.train.labels[:2].tolist() == [[0], [1]]


def test_nih_films_of_a_patient_on_both_sides_of_the_end_of_the_list_stay_in_train(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dinov2.eval.datasets.public.of_layout.NIH_VAL", 3)
    monkeypatch.setattr("dinov2.eval.datasets.public.of_layout.NIH_LISTED", 16)
    with caplog.at_level(logging.WARNING):
        data = open_data(f"NIHChestXray:root={copies.nih(tmp_path)}")
    assert everything(data) == {"train": 14, "val": 2, "test": 2}
    assert "1 films at the end of the list are of patients before it" in caplog.text


def test_nih_without_its_lists_names_them(tmp_path):
    copies.nih(tmp_path)
    (tmp_path / "train_val_list.txt").unlink()
    with pytest.raises(ManifestError, match=r"has no train_val_list\.txt and test_list\.txt"):
        open_data(f"NIHChestXray:root={tmp_path}")


def test_a_split_of_a_public_dataset_can_be_asked_for(tmp_path):
    root = copies.nih(tmp_path)
    data = open_data(None, train=f"NIHChestXray:split=TRAIN:root={root}", test=f"NIHChestXray:root={root}:split=TEST")
    assert everything(data) == {"train": 14, "test": 2}
    assert everything(open_data(None, train=f"NIHChestXray:root={root}")) == {"train": 14}
    with pytest.raises(ManifestError, match="split=DEV is none of train, val and test"):
        open_data(f"NIHChestXray:root={root}:split=DEV")


def test_two_public_datasets_are_judged_on_the_labels_that_both_have(tmp_path):
    nih, chexpert = copies.nih(tmp_path / "n"), copies.chexpert(tmp_path / "c")
    words = {"dataset": f"NIHChestXray:root={nih}", "test": f"CheXpert:root={chexpert}"}
    with pytest.raises(ManifestError, match="Name common ones: --labels"):
        open_data(**words)
    data = open_data(**words, labels=["Cardiomegaly", "Edema"])
    assert data.test.labels.tolist() == [[1, UNCERTAIN]]


@pytest.mark.parametrize("splits", [True, False])
def test_montgomery_has_a_class_per_lung(tmp_path, splits, caplog):
    root = copies.montgomery(tmp_path, splits=splits)
    with caplog.at_level(logging.WARNING):
        data = open_data(f"MC:root={root}", segmentation=True)
    assert data.train.classes == ("left lung", "right lung")
    expected = np.zeros((12, 10))
    expected[2:6, 1:4], expected[2:6, 6:9] = 1, 2
    for _, examples in data.splits():
        np.testing.assert_array_equal(examples.reader.mask(0), expected)
    assert everything(data) == ({"train": 4, "val": 4, "test": 4} if splits else {"train": 6, "val": 2, "test": 4})
    assert ("defines no split: patients were drawn" in caplog.text) != splits
    labels = open_data(f"MC:root={root}").train
    assert labels.labels[:, 0].tolist() == [int(name[-1]) for name in labels.ids]


def test_drawn_splits_are_the_same_every_time(tmp_path):
    root = copies.montgomery(tmp_path, splits=False)
    first, second = (open_data(f"MC:root={root}") for _ in range(2))
    for (_, one), (_, other) in zip(first.splits(), second.splits(), strict=True):
        assert one.ids.tolist() == other.ids.tolist()


def test_shenzhen_is_coloured_and_its_255_is_the_lungs(tmp_path):
    data = open_data(f"Shenzhen:root={copies.shenzhen(tmp_path)}", segmentation=True)
    assert everything(data) == {"train": 1, "val": 2, "test": 2}  # one has no mask
    assert data.train.reader.picture(0).shape == (12, 10, 3)
    assert np.unique(data.val.reader.mask(0)).tolist() == [0, 1]
    assert everything(open_data(f"Shenzhen:root={tmp_path}")) == {"train": 2, "val": 2, "test": 2}


def test_vindr_takes_what_most_radiologists_said_from_converted_films(tmp_path):
    root = copies.vindr(tmp_path)
    data = open_data(f"VinDrCXR:root={root}:extra={root / 'converted'}")
    assert everything(data) == {"train": 2, "test": 1}
    assert len(data.train.classes) == 7
    aortic, opacity = (data.train.classes.index(name) for name in ("Aortic enlargement", "Lung Opacity"))
    assert data.train.labels[:, [aortic, opacity]].tolist() == [[1, 1], [0, 0]]


def test_vindr_as_dicom_says_that_films_are_converted_first(tmp_path):
    root = copies.vindr(tmp_path)
    for path in (root / "converted").rglob("*.png"):
        path.rename(path.with_suffix(".dicom"))
    with pytest.raises(ManifestError, match=r"none of the .* DICOM files are converted first: dinov2 preprocess"):
        open_data(f"VinDrCXR:root={root}")


def test_rsna_has_a_row_per_film_and_two_kinds_of_labels(tmp_path):
    root = copies.rsna(tmp_path)
    data = open_data(f"RSNAPneumonia:root={root}")
    assert everything(data) == {"train": 14, "val": 3, "test": 3}
    for _, examples in data.splits():
        assert examples.labels[:, 0].tolist() == [int(name[2:]) % 2 for name in examples.ids]
    kinds = open_data(f"RSNAPneumonia:root={root}", labels=["class"])
    assert kinds.train.classes == ("Lung Opacity", "Normal")


def test_siim_masks_are_the_union_of_a_films_runs_at_the_pictures_size(tmp_path):
    root = copies.siim(tmp_path)
    data = open_data(f"SIIM:root={root}:extra={root / 'png'}", segmentation=True)
    by_id = {name: (examples, row) for _, examples in data.splits() for row, name in enumerate(examples.ids)}
    examples, row = by_id["1.2.0"]
    drawn = np.zeros((1024, 1024))
    drawn[:3, 2] = 1  # 2048 = two columns
    drawn[0:2, 3] = 1  # 1021 further on
    drawn[0, 0] = 1
    np.testing.assert_array_equal(examples.reader.mask(row), drawn)
    examples, row = by_id["1.2.1"]
    assert examples.reader.mask(row).shape == (64, 64)
    assert examples.reader.mask(row).sum() == 0
    labels = open_data(f"SIIM:root={root}:extra={root / 'png'}")
    assert sum(int(one.labels.sum()) for _, one in labels.splits()) == 1


def test_candid_divides_by_its_patients(tmp_path):
    data = open_data(f"CandidPTX:root={copies.candid(tmp_path)}", segmentation=True)
    assert sum(everything(data).values()) == 20
    assert {name.startswith("p") for _, examples in data.splits() for name in examples.patients} == {True}
    odd = next(row for row, name in enumerate(data.train.ids) if int(name.split(".")[-1]) % 2)
    assert data.train.reader.mask(odd).shape == (64, 64)


@pytest.mark.parametrize("form", ["tables", "reports"])
def test_openi_findings_come_from_the_headings(tmp_path, form):
    data = open_data(f"OpenI:root={copies.openi(tmp_path, form=form)}")
    assert sum(everything(data).values()) == (14 if form == "tables" else 15)
    for _, examples in data.splits():
        for name, labels in zip(examples.patients, examples.labels, strict=True):
            found = {finding for finding, value in zip(examples.classes, labels, strict=True) if value}
            assert found == [{"Cardiomegaly", "Pulmonary Edema"}, {"normal"}, {"Opacity"}][int(name) % 3]


def test_padchest_has_findings_of_its_table_and_frontal_films(tmp_path):
    data = open_data(f"PadChest:root={copies.padchest(tmp_path)}")
    assert data.train.classes == ("Cardiomegaly", "Pleural effusion")
    assert sum(everything(data).values()) == 19
    assert open_data(f"PadChest:root={tmp_path}", labels=["normal"]).train.task == "multilabel"


def test_covid_qu_ex_takes_every_film_once_with_the_mask_of_its_lungs(tmp_path):
    data = open_data(f"COVIDQU:root={copies.covid_qu_ex(tmp_path)}")
    assert everything(data) == {"train": 3, "val": 3, "test": 3}
    assert data.train.classes == ("COVID-19", "Non-COVID", "Normal")
    assert sorted(data.test.labels.tolist()) == [0, 1, 2]
    lungs = open_data(f"COVIDQU:root={tmp_path}", segmentation=True)
    assert lungs.val.classes == ("lungs",)
    assert lungs.val.reader.mask(0).sum() == 24


def test_the_radiography_database_has_smaller_masks_that_follow_its_films(tmp_path):
    root = copies.radiography(tmp_path)
    data = open_data(f"COVIDQU:root={root}")
    assert data.train.classes == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert sum(everything(data).values()) == 20
    assert open_data(f"COVIDQU:root={root}", segmentation=True).train.reader.mask(0).shape == (12, 10)


def test_pneumonia_is_its_folders(tmp_path):
    data = open_data(f"Pneumonia:root={copies.kermany(tmp_path)}")
    assert everything(data) == {"train": 2, "val": 2, "test": 2}
    assert (data.train.task, data.train.classes) == ("multiclass", ("NORMAL", "PNEUMONIA"))
    assert data.train.patients.tolist() == ["IM-0000", "person0_virus"]


def test_pickled_splits_have_one_order_of_classes_though_val_lacks_one(tmp_path):
    root = copies.pickles(tmp_path)
    for text in (f"NIHChestXray:root={root}", f"NIHChestXray:root={root}:extra={root / 'splits'}"):
        data = open_data(text)
        assert everything(data) == {"train": 2, "val": 1, "test": 2}
        assert data.val.classes == ("Atelectasis", "Edema")
        assert data.val.labels.tolist() == [1]
        assert data.train.patients.tolist() == ["00000005", "00000011"]
        assert data.test.reader.picture(0).shape == (12, 10)


class _Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("was_run"),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class2images_train.p").write_bytes(pickle.dumps({"a": [_Malicious()]}))
    with pytest.raises(ManifestError, match="only dictionaries, lists and texts are read"):
        read_pickle(tmp_path / "class2images_train.p")
    assert not Path("was_run").exists()
    (tmp_path / "x.p").write_bytes(pickle.dumps(["a"]))
    with pytest.raises(ManifestError, match="should hold a dictionary"):
        read_pickle(tmp_path / "x.p")


def test_a_table_without_its_columns_is_refused_by_their_names(tmp_path):
    root = copies.rsna(tmp_path)
    rows = list(csv.reader((root / "stage_2_train_labels.csv").open()))
    (root / "stage_2_train_labels.csv").write_text("\n".join(",".join(row[:1]) for row in rows))
    with pytest.raises(ManifestError, match=re.escape("the columns Target are missing")):
        open_data(f"RSNAPneumonia:root={root}")


def test_a_word_that_a_dataset_does_not_read_is_refused(tmp_path):
    root = copies.montgomery(tmp_path, splits=True)
    with pytest.raises(ManifestError, match="Leave extra out"):
        open_data(f"MC:root={root}:extra=/x")
    with pytest.raises(ManifestError, match=r"NIHChestXry: not a dataset known here.*Did you mean NIHChestXray"):
        open_data(f"NIHChestXry:root={root}")
