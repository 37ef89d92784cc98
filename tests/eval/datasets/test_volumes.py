"""Volumes as slices: NIfTI and arrays, their windows, and which slices are one case."""

import pickle

import numpy as np
import pytest
import SimpleITK as sitk

from dinov2.errors import ManifestError
from dinov2.eval.datasets import open_data
from dinov2.eval.datasets.volumes.nifti import NiftiSlices, num_slices, read_volume
from dinov2.eval.datasets.volumes.windows import Fixed, Percentiles, scaled
from tests.eval.datasets import copies


def volume(seed=0, *, slices=4):
    return np.random.default_rng(seed).integers(-1200, 1500, (slices, 6, 5)).astype(np.int16)


def organ(slices=4):
    values = np.zeros((slices, 6, 5), np.uint8)
    values[1, 2:4, 1:3], values[2, 0, 0] = 1, 2
    return values


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("flipped", [False, True])
def test_slices_are_axial_whatever_way_a_volume_was_stored(tmp_path, name, flipped):
    values = volume()
    copies.nifti(tmp_path / name, values, flipped=flipped)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    assert np.array_equal(stored, values) != flipped
    assert num_slices(tmp_path / name) == 4
    np.testing.assert_array_equal(read_volume(tmp_path / name), values)


def test_a_volume_stored_from_the_side_has_axial_slices_too(tmp_path):
    values = volume(slices=3)
    image = sitk.GetImageFromArray(values)
    sitk.WriteImage(sitk.DICOMOrient(image, "SPL"), str(tmp_path / "a.nii.gz"))
    assert num_slices(tmp_path / "a.nii.gz") == 3
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz"), values)


def test_a_fixed_window_clips_and_maps_to_0_and_1():
    values = np.array([-2000, -1024, -212, 600, 3000], np.int16)
    np.testing.assert_allclose(scaled(values, limits=Fixed(-1024, 600).limits(values)), [0, 0, 0.5, 1, 1])


def test_percentiles_are_those_of_the_volume_not_of_the_slice(tmp_path):
    values = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)
    copies.nifti(tmp_path / "a.nii.gz", values)
    slices = NiftiSlices([tmp_path / "a.nii.gz"] * 4, [0, 1, 2, 3], window=Percentiles(5, 95))
    low, high = np.percentile(values, [5, 95])
    for row in range(4):
        expected = np.clip((values[row] - low) / (high - low), 0, 1)
        assert slices.picture(row).dtype == np.float32
        np.testing.assert_allclose(slices.picture(row), expected, atol=1e-6)
    assert scaled(np.ones((2, 2)), limits=(1, 1)).tolist() == [[0, 0], [0, 0]]


def test_a_reader_of_volumes_can_be_sent_to_a_worker_without_its_volume(tmp_path):
    copies.nifti(tmp_path / "a.nii.gz", volume(slices=200))
    slices = NiftiSlices([tmp_path / "a.nii.gz"], [7], window=Fixed(-1024, 600))
    first = slices.picture(0)
    sent = pickle.dumps(slices)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).picture(0), first)


def test_sars_cov_2_ct_tells_the_label_by_the_scans_number_and_counts_slices(tmp_path):
    data = open_data(f"SARSCoV2CT:root={copies.sars(tmp_path)}")
    assert data.train.classes == ("COVID-19",)
    assert data.train.volumes.tolist() == ["78"] * 3 + ["80"] * 3
    assert data.train.labels[:, 0].tolist() == [1, 1, 1, 0, 0, 0]
    assert data.val.labels[:, 0].tolist() == [1, 1, 1, 0, 0, 0]
    assert data.train.ids.tolist()[:3] == ["78/1", "78/2", "78/10"]


def test_a_scan_in_two_splits_is_refused(tmp_path):
    copies.sars(tmp_path)
    copies.film(tmp_path / "test" / "78" / "1.png")
    with pytest.raises(ManifestError, match="1 patients are in both train"):
        open_data(f"SARSCoV2CT:root={tmp_path}")


def test_btcv_as_it_ships_is_divided_by_volumes_and_its_unlabelled_volumes_are_left_out(tmp_path, caplog):
    for number in range(1, 9):
        copies.nifti(tmp_path / "Training" / "img" / f"img{number:04}.nii.gz", volume(number), flipped=number % 2 == 0)
        copies.nifti(tmp_path / "Training" / "label" / f"label{number:04}.nii.gz", organ(), flipped=number % 2 == 0)
    copies.nifti(tmp_path / "Testing" / "img" / "img0061.nii.gz", volume())
    data = open_data(f"BTCV:root={tmp_path}", segmentation=True)
    assert len(data.train.classes) == 13
    assert [len(examples) for _, examples in data.splits()] == [20, 4, 8]
    assert "drawn" in caplog.text
    for _, examples in data.splits():
        names, counts = np.unique(examples.volumes, return_counts=True)
        assert counts.tolist() == [4] * len(names)
        for row in range(4):
            number = int(examples.volumes[row][3:])
            np.testing.assert_array_equal(examples.reader.mask(row), organ()[row])
            expected = scaled(volume(number)[row], limits=(-1024, 600))
            np.testing.assert_array_equal(examples.reader.picture(row), expected)


def test_btcv_in_folders_of_splits_keeps_them_and_a_test_split_without_labels_is_none(tmp_path):
    for place, split in enumerate(("train", "val", "test")):
        copies.nifti(tmp_path / split / "img" / "one" / f"img000{place}.nii.gz", volume(place))
        if split != "test":
            copies.nifti(tmp_path / split / "label" / "one" / f"label000{place}.nii.gz", organ())
    data = open_data(f"BTCV:root={tmp_path}", segmentation=True)
    assert [name for name, _ in data.splits()] == ["train", "val"]
    assert data.val.volumes.tolist() == ["img0001"] * 4


@pytest.mark.parametrize("beside", [True, False])
def test_slices_as_arrays_know_their_volume(tmp_path, beside):
    """Labels beside each split's slices (BTCVSlice), or all in one folder (AMOS)."""
    for case, split in enumerate(("train", "val", "test")):
        for number in range(3):
            name = f"{'img' if beside else 'amos_'}000{case}_{number}.npy"
            folder = tmp_path / split / "img" if beside else tmp_path / split
            labels = tmp_path / split / "label" if beside else tmp_path / "labels"
            for place, values in (
                (folder / name, volume(case)[number]),
                (labels / name.replace("img", "label"), organ()[number]),
            ):
                place.parent.mkdir(parents=True, exist_ok=True)
                np.save(place, values)
    data = open_data(f"{'BTCVSlice' if beside else 'AMOS'}:root={tmp_path}", segmentation=True)
    assert [len(examples) for _, examples in data.splits()] == [3, 3, 3]
    assert set(data.val.volumes) == {"img0001" if beside else "amos_0001"}
    np.testing.assert_array_equal(data.val.reader.mask(1), organ()[1])
    np.testing.assert_array_equal(data.val.reader.picture(2), scaled(volume(1)[2], limits=(-1024, 600)))


def test_amos_as_it_ships_takes_ct_alone(tmp_path):
    for number, part in ((1, "Tr"), (507, "Tr"), (8, "Va")):
        copies.nifti(tmp_path / f"images{part}" / f"amos_{number:04}.nii.gz", volume(number))
        copies.nifti(tmp_path / f"labels{part}" / f"amos_{number:04}.nii.gz", organ())
    data = open_data(f"AMOS:root={tmp_path}", segmentation=True)
    assert {name: set(examples.volumes) for name, examples in data.splits()} == {
        "train": {"amos_0001"},
        "val": {"amos_0008"},
    }


@pytest.mark.parametrize(("name", "num_classes"), [("MSDHeart", 1), ("MSDHipp", 2), ("MSDSpleen", 1)])
def test_the_decathlon_is_read_from_its_own_folders(tmp_path, name, num_classes):
    for number in range(8):
        values = np.minimum(organ(), num_classes)
        copies.nifti(tmp_path / "imagesTr" / f"x_{number:03}.nii.gz", volume(number))
        copies.nifti(tmp_path / "labelsTr" / f"x_{number:03}.nii.gz", values)
        copies.nifti(tmp_path / "imagesTs" / f"x_1{number:02}.nii.gz", volume(number))
    data = open_data(f"{name}:root={tmp_path}", segmentation=True)
    assert len(data.train.classes) == num_classes
    assert sum(len(examples) for _, examples in data.splits()) == 32
    assert 0 <= data.train.reader.picture(0).min() <= data.train.reader.picture(0).max() <= 1


def test_a_label_beyond_the_classes_and_a_damaged_volume_are_refused(tmp_path):
    for number in range(8):
        copies.nifti(tmp_path / "imagesTr" / f"x_{number:03}.nii.gz", volume(number))
        copies.nifti(tmp_path / "labelsTr" / f"x_{number:03}.nii.gz", organ())
    data = open_data(f"MSDHeart:root={tmp_path}", segmentation=True)
    with pytest.raises(ManifestError, match="the mask has the values 2; with 1 classes"):
        data.train.reader.mask(2)
    (tmp_path / "imagesTr" / "x_003.nii.gz").write_bytes(b"damaged")
    with pytest.raises(ManifestError, match=r"x_003\.nii\.gz: not a readable NIfTI volume"):
        open_data(f"MSDHeart:root={tmp_path}", segmentation=True)
