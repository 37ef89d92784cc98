"""Rows of features and of examples stay together."""

from pathlib import Path

import numpy as np
import pytest

from dinov2.errors import ManifestError
from dinov2.eval.features import Features, Labelled, PatchRows, by_volume, join_examples
from tests.eval.pictures.made import examples_of, noise


def features_of(count: int, *, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        cls=rng.normal(size=(count, 2, 4)).astype(np.float32),
        pooled=rng.normal(size=(count, 2, 4)).astype(np.float32),
        patches=PatchRows.of(rng.normal(size=(count, 3, 4)).astype(np.float32)),
        grid=(1, 3),
    )


def test_taking_and_joining_keep_rows_together() -> None:
    one = Labelled(features_of(4), examples_of(noise(4), labels=[[0], [1], [0], [1]]))
    other = Labelled(features_of(3, seed=1), examples_of(noise(3, seed=1), labels=[[1], [1], [0]], name="others"))
    joined = one.joined(other)
    assert joined.examples.ids.tolist() == [*one.examples.ids, *other.examples.ids]
    taken = joined.take([6, 0, 4])
    assert taken.examples.ids.tolist() == ["others-2", "films-0", "others-0"]
    assert taken.examples.labels.ravel().tolist() == [0, 0, 1]
    np.testing.assert_array_equal(
        taken.features.cls, np.stack([other.features.cls[2], one.features.cls[0], other.features.cls[0]])
    )
    assert taken.features.patches is not None
    assert other.features.patches is not None
    np.testing.assert_array_equal(taken.features.patches[0], other.features.patches[2])
    np.testing.assert_array_equal(taken.features.patches[1:], np.asarray(joined.features.patches)[[0, 4]])
    np.testing.assert_array_equal(taken.examples.reader.picture(0), noise(3, seed=1)[2])


def test_joined_pictures_are_found_from_another_folder_and_with_other_columns(tmp_path: Path) -> None:
    one = examples_of(noise(2), root=tmp_path / "a", columns={"age": [60, 61]})
    other = examples_of(
        noise(2), root=tmp_path / "b", name="others", columns={"age": ["unknown", "70"], "sex": ["F", "M"]}
    )
    joined = join_examples(one, other)
    assert [joined.manifest.path(row).parent.name for row in range(4)] == ["a", "a", "b", "b"]
    assert joined.group("age").tolist() == ["60", "61", "unknown", "70"]
    assert joined.group("sex").tolist() == ["", "", "F", "M"]


def test_splits_with_other_classes_are_not_joined() -> None:
    with pytest.raises(ManifestError, match="same labels, in the same order"):
        join_examples(examples_of(noise(1)), examples_of(noise(1), classes=("other",)))


def test_features_of_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="4 rows of features for 3"):
        Labelled(features_of(4), examples_of(noise(3)))


def test_slices_of_a_volume_become_one_row_their_mean() -> None:
    volumes = ["b", "a", "b", "a", "c"]
    labels = [[1], [0], [1], [0], [np.nan]]
    patients = ["2", "1", "2", "1", "3"]
    features = features_of(5)
    labelled = by_volume(features, examples_of(noise(5), labels=labels, volumes=volumes, patients=patients))
    assert labelled.examples.ids.tolist() == ["b", "a", "c"]
    assert labelled.examples.patients.tolist() == ["2", "1", "3"]
    np.testing.assert_allclose(labelled.features.cls[0], features.cls[[0, 2]].mean(axis=0), rtol=1e-6)
    assert features.patches is not None
    assert labelled.features.patches is not None
    np.testing.assert_allclose(labelled.features.patches[1], features.patches[[1, 3]].mean(axis=0), rtol=1e-6)


def test_slices_of_one_volume_with_different_labels_are_refused() -> None:
    examples = examples_of(noise(2), labels=[[1], [0]], volumes=["scan", "scan"], patients=["1", "1"])
    with pytest.raises(ManifestError, match="slices of the volume scan have different labels"):
        by_volume(features_of(2), examples)
