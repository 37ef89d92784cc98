"""Any manifest with label or mask columns becomes train, val and test."""

import logging
import pickle

import numpy as np
import pytest

from dinov2.errors import ManifestError
from dinov2.eval.datasets import open_data
from dinov2.manifest import from_rows
from tests.eval.datasets.copies import film, mask

SPLITS = ("train", "train", "valid", "TEST")


def table(tmp_path, *rows, form="csv", name="m"):
    """A manifest with a film per row; patients are their rows."""
    full = [{"image": f"{i}.png", "patient": f"p{i}", "split": SPLITS[i % 4], **row} for i, row in enumerate(rows)]
    for row in full:
        film(tmp_path / row["image"])
    path = tmp_path / f"{name}.{form}"
    from_rows(full, root=tmp_path).write(path)
    return str(path)


def labels_of(data):
    return {name: examples.labels.tolist() for name, examples in data.splits()}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_of_every_kind_become_multilabel(tmp_path, form):
    path = table(
        tmp_path,
        {"a": 1, "b": "1.0", "c": True},
        {"a": 0, "b": "-1", "c": False},
        {"a": -1, "b": "", "c": True},
        {"a": None, "b": "0", "c": False},
        form=form,
    )
    data = open_data(path, labels=["a", "b", "c"])
    assert data.train.task == "multilabel"
    assert data.train.classes == ("a", "b", "c")
    assert data.train.labels.dtype == np.float32
    np.testing.assert_array_equal(data.train.labels, [[1, 1, 1], [0, -1, 0]])
    np.testing.assert_array_equal(data.val.labels, [[-1, np.nan, 1]])
    np.testing.assert_array_equal(data.test.labels, [[np.nan, 0, 0]])


def test_one_column_of_ones_and_zeros_is_one_finding(tmp_path):
    data = open_data(table(tmp_path, *({"icu": i % 2} for i in range(4))), labels=["icu"])
    assert (data.train.task, data.train.classes, data.train.labels.shape) == ("multilabel", ("icu",), (2, 1))


def test_the_order_of_classes_is_the_same_where_a_split_lacks_one(tmp_path):
    """Fitted per split, `B` would be class 0 of val and class 1 of train."""
    path = table(tmp_path, {"kind": "C"}, {"kind": "A"}, {"kind": "B"}, {"kind": "A"})
    data = open_data(path, labels=["kind"])
    assert [examples.classes for _, examples in data.splits()] == [("A", "B", "C")] * 3
    assert labels_of(data) == {"train": [2, 0], "val": [1], "test": [0]}


def test_the_order_of_findings_is_the_same_where_a_split_lacks_one(tmp_path, caplog):
    path = table(tmp_path, {"said": "Mass|Edema"}, {"said": "Edema"}, {"said": "Nodule"}, {"said": "Mass | Nodule"})
    with caplog.at_level(logging.WARNING):
        data = open_data(path, labels=["said"])
    assert data.val.classes == ("Edema", "Mass", "Nodule")
    assert labels_of(data) == {"train": [[1, 1, 0], [1, 0, 0]], "val": [[0, 0, 1]], "test": [[0, 1, 1]]}
    assert "m.csv, val: no picture shows Edema, Mass; the class keeps its place." in caplog.text


def test_classes_that_are_given_set_the_order_and_leave_others_out(tmp_path, caplog):
    path = table(tmp_path, {"view": "PA"}, {"view": "AP"}, {"view": "PA"}, {"view": "LL"})
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ManifestError, match=r"m\.csv, test: no picture has a label in view"),
    ):
        open_data(path, labels=["view"], classes=["PA", "AP"])
    path = table(tmp_path, *({"k": k} for k in ("y", "x", "x", "x", "z")))
    with caplog.at_level(logging.WARNING):
        data = open_data(path, labels=["k"], classes=["y", "x"])
    assert data.train.classes == ("y", "x")
    assert data.train.labels.tolist() == [0, 1]
    assert "1 of 3 pictures have no label; left out" in caplog.text


def test_rows_without_any_label_are_left_out_and_the_reader_follows(tmp_path, caplog):
    rows = [
        {"k": k, "split": s}
        for k, s in zip(("", "a", "b", "a", "b"), ("train", "train", "train", "val", "test"), strict=True)
    ]
    path = table(tmp_path, *rows)
    film(tmp_path / "1.png", seed=77)
    with caplog.at_level(logging.WARNING):
        data = open_data(path, labels=["k"])
    assert len(data.train) == 2
    assert "m.csv, train: 1 of 3 pictures have no label; left out." in caplog.text
    film(tmp_path / "expected.png", seed=77)
    reader = pickle.loads(pickle.dumps(data.train.reader))
    np.testing.assert_array_equal(reader.picture(0), data.train.take([0]).reader.picture(0))
    from PIL import Image

    np.testing.assert_array_equal(reader.picture(0), np.asarray(Image.open(tmp_path / "expected.png")))


@pytest.mark.parametrize("value", ["2", "yes", "0.5"])
def test_a_cell_that_is_no_label_is_named(tmp_path, value):
    path = table(tmp_path, {"a": "1", "b": "1"}, {"a": value, "b": "0"}, {"a": "0", "b": "0"}, {"a": "0", "b": "0"})
    with pytest.raises(ManifestError, match=rf"column a of .*1\.png: '{value}' is no label"):
        open_data(path, labels=["a", "b"])


def test_columns_that_look_like_labels_are_told_where_none_are_named(tmp_path):
    path = table(tmp_path, *({"effusion": i % 2, "site": f"s{i}", "note": None} for i in range(4)))
    with pytest.raises(ManifestError, match=r"effusion \(1 or 0\); site \(s0, s1\)"):
        open_data(path)
    with pytest.raises(ManifestError, match="Did you mean effusion"):
        open_data(path, labels=["efusion"])


def test_a_label_column_is_found_by_the_name_of_its_finding(tmp_path):
    path = table(tmp_path, *({"label_pleural_effusion": i % 2} for i in range(4)))
    assert open_data(path, labels=["Pleural Effusion"]).train.labels.tolist() == [[0], [1]]


def test_no_validation_split_is_none_and_is_said(tmp_path, caplog):
    path = table(tmp_path, *({"a": i % 2, "split": ("train", "test")[i // 2]} for i in range(4)))
    with caplog.at_level(logging.WARNING):
        data = open_data(path, labels=["a"])
    assert data.val is None
    assert len(data.test) == 2
    assert "has no picture for val" in caplog.text


def test_splits_may_be_called_anything(tmp_path):
    path = table(tmp_path, *({"a": i % 2, "split": ("fold0", "Fold0", "fold1", "x")[i]} for i in range(4)))
    data = open_data(path, labels=["a"], split_names={"train": "FOLD0", "val": "fold1", "test": "x"})
    assert [len(examples) for _, examples in data.splits()] == [2, 1, 1]
    with pytest.raises(ManifestError, match=r"no picture has split train\. Its splits are fold0, fold1, x"):
        open_data(path, labels=["a"])


def test_a_split_may_be_a_manifest_of_its_own(tmp_path):
    train = table(tmp_path, *({"k": k, "split": None} for k in "ab"), name="one")
    test = table(tmp_path, *({"k": k, "patient": f"q{i}", "split": None} for i, k in enumerate("bc")), name="two")
    data = open_data(None, train=train, test=test, labels=["k"])
    assert data.val is None
    assert data.test.classes == data.train.classes == ("a", "b", "c")
    assert data.test.labels.tolist() == [1, 2]
    both = open_data(
        table(tmp_path, *({"k": k, "split": "train"} for k in "ab"), name="three"), test=test, labels=["k"]
    )
    assert (len(both.train), len(both.test)) == (2, 2)


def test_shared_patients_are_refused_and_pictures_without_one_are_their_own(tmp_path):
    path = table(tmp_path, *({"a": i % 2, "patient": "7" if i in (0, 3) else None} for i in range(4)))
    with pytest.raises(ManifestError, match=r"1 patients are in both train .* and test .*: 7"):
        open_data(path, labels=["a"])
    path = table(tmp_path, *({"a": i % 2, "patient": None} for i in range(4)))
    assert open_data(path, labels=["a"]).train.patients.tolist() == ["0.png", "1.png"]


def test_views_are_chosen_in_any_letters(tmp_path):
    path = table(tmp_path, *({"a": i % 2, "view": ("AP", "PA")[i // 4]} for i in range(8)))
    data = open_data(path, labels=["a"], views=["pa"])
    assert [len(examples) for _, examples in data.splits()] == [2, 1, 1]
    with pytest.raises(ManifestError, match="no picture has a view in LL; present are AP, PA"):
        open_data(path, labels=["a"], views=["LL"])


def test_masks_are_read_and_values_beyond_the_classes_refused(tmp_path):
    values = np.zeros((12, 10))
    values[2:5, 3:6], values[8, 8] = 1, 2
    for number in range(4):
        mask(tmp_path / "masks" / f"{number}.png", values)
    path = table(tmp_path, *({"mask": f"masks/{i}.png"} for i in range(4)))
    data = open_data(path, masks="mask", classes=["heart", "lung"], segmentation=True)
    assert (data.train.task, data.train.classes, data.train.labels.shape) == ("segmentation", ("heart", "lung"), (2, 0))
    np.testing.assert_array_equal(data.test.reader.mask(0), values)
    assert open_data(path, segmentation=True).train.classes == ("class 1", "class 2")
    with pytest.raises(ManifestError, match="row 3: the mask has the values 2; with 1 classes"):
        open_data(path, segmentation=True, classes=["heart"]).test.reader.mask(0)


def test_a_mask_of_another_size_is_refused_and_a_row_without_one_left_out(tmp_path, caplog):
    mask(tmp_path / "small.png", np.eye(4))
    path = table(tmp_path, {"mask": "small.png"}, {"mask": ""}, {"mask": "small.png"}, {"mask": "small.png"})
    with caplog.at_level(logging.WARNING):
        data = open_data(path, segmentation=True, classes=["x"])
    assert len(data.train) == 1
    assert "1 of 2 pictures have no mask" in caplog.text
    with pytest.raises(ManifestError, match="row 0: the mask is 4 x 4 pixels and its picture 10 x 12"):
        data.train.reader.mask(0)


def test_columns_that_look_like_masks_are_told_where_none_are_named(tmp_path):
    path = table(tmp_path, *({"drawn": f"{i}.png"} for i in range(4)))
    with pytest.raises(ManifestError, match="These look like it: drawn"):
        open_data(path, segmentation=True)


def test_a_folder_with_a_manifest_and_a_name_with_a_root_are_the_same_pictures(tmp_path):
    table(tmp_path, *({"a": i % 2, "dataset": "mine"} for i in range(4)), name="manifest")
    for text in (str(tmp_path), f"mine:root={tmp_path}"):
        assert len(open_data(text, labels=["a"]).train) == 2
    with pytest.raises(ManifestError, match="not a dataset known here"):
        open_data(f"CheXprt:root={tmp_path / 'none'}", labels=["a"])


def test_nothing_to_open_is_one_clear_sentence():
    with pytest.raises(ManifestError, match="give --dataset, or --train-dataset"):
        open_data(None)
    with pytest.raises(ManifestError, match="no such manifest"):
        open_data("absent/m.csv", labels=["a"])
