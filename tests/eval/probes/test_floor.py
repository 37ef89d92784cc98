from dataclasses import replace

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.eval.examples import EvalData, Examples
from dinov2.eval.probes.floor import metadata_control, pixel_floor
from dinov2.eval.scores import macro_auroc
from tests.eval.probes.planted import examples_of

RNG = np.random.default_rng(0)
ONE = ("found",)


def pictures(labels: np.ndarray, *, signal: int) -> np.ndarray:
    """A brighter corner where label 0 is 1, in noise."""
    drawn = RNG.integers(60, 140, size=(len(labels), 40, 48), dtype=np.int64)
    drawn[:, :20, :24] += signal * (labels[:, 0] == 1)[:, None, None].astype(np.int64)
    return drawn.astype(np.uint8)


def data(
    *, signal: int = 0, columns: dict[str, list[str]] | None = None, sizes: tuple[int, ...] = (120, 60, 80)
) -> EvalData:
    made: list[Examples] = []
    for name, num in zip(("train", "val", "test"), sizes, strict=True):
        labels = (RNG.random((num, 1)) < 0.5).astype(np.float32)
        told = {key: [values[int(label)] for label in labels[:, 0]] for key, values in (columns or {}).items()}
        made.append(examples_of(labels, name=name, classes=ONE, pictures=pictures(labels, signal=signal), columns=told))
    return EvalData(train=made[0], val=made[1], test=made[2])


def test_pixels_tell_what_is_in_them() -> None:
    seen: list[int] = []
    outcome = pixel_floor(data(signal=25), advance=seen.append)
    assert macro_auroc(outcome.test) > 0.99
    assert sum(seen) == 260
    assert outcome.fitted_on == "train + val"
    assert len(outcome.trail) > 1


def test_pixels_of_noise_stay_at_one_half() -> None:
    assert np.mean([macro_auroc(pixel_floor(data()).test) for _ in range(4)]) == pytest.approx(0.5, abs=0.07)


def slices(examples: Examples) -> Examples:
    """The same pictures as volumes of three, every other one positive."""
    owners = np.asarray([f"{examples.name} {row // 3}" for row in range(len(examples))])
    labels = (np.arange(len(examples)) // 3 % 2).astype(np.float32)[:, None]
    return replace(examples, labels=labels, patients=owners, volumes=owners)


def test_slices_of_a_volume_are_one_case() -> None:
    train, val, test = (slices(examples) for _, examples in data(sizes=(90, 60, 60)).splits())
    outcome = pixel_floor(EvalData(train=train, val=val, test=test))
    assert outcome.counts == {"train": 30, "val": 20, "test": 20}
    assert outcome.test.ids.tolist() == test.volumes[::3].tolist()


def test_metadata_tells_a_label_that_follows_the_view_and_says_which_columns_were_used() -> None:
    outcome = metadata_control(data(columns={"view": ["AP", "PA"], "sex": ["", ""]}))
    assert macro_auroc(outcome.test) == 1.0
    assert outcome.settings["columns"] == ["view"]
    assert outcome.backbone == "metadata: view"


def test_a_value_that_is_missing_is_a_value_of_its_own() -> None:
    assert macro_auroc(metadata_control(data(columns={"site": ["", "north"]})).test) == 1.0


def test_many_numbers_become_bands_so_that_the_middle_can_be_told_from_both_ends() -> None:
    whole = data()
    made = []
    for _, examples in whole.splits():
        ages = [
            str(int(RNG.integers(40, 60)) if label else int(RNG.choice([RNG.integers(0, 40), RNG.integers(60, 99)])))
            for label in examples.labels[:, 0]
        ]
        made.append(examples_of(examples.labels, name=examples.name, classes=ONE, columns={"age": ages}))
    outcome = metadata_control(EvalData(train=made[0], val=made[1], test=made[2]))
    assert macro_auroc(outcome.test) > 0.85


def test_a_value_that_training_never_saw_is_none_of_those_it_saw() -> None:
    whole = data(columns={"view": ["AP", "PA"]})
    test = examples_of(
        whole.test.labels, name="test", classes=ONE, columns={"view": ["LL" for _ in range(len(whole.test))]}
    )
    said = metadata_control(EvalData(train=whole.train, val=whole.val, test=test)).test.scores
    assert np.ptp(said) == 0


def test_columns_that_are_the_classes_themselves_say_nothing_and_no_column_at_all_is_refused() -> None:
    labels = (np.arange(20) % 2).astype(np.float32)
    views = [("AP", "PA")[int(label)] for label in labels]
    train = examples_of(labels, name="train", task="multiclass", classes=("AP", "PA"), columns={"view": views})
    with pytest.raises(ConfigError, match="none of the columns view, sex, age, site"):
        metadata_control(EvalData(train=train, val=None, test=None))


def test_without_validation_one_strength_is_used() -> None:
    whole = data(signal=25)
    outcome = pixel_floor(EvalData(train=whole.train, val=None, test=whole.test))
    assert outcome.fitted_on == "train"
    assert macro_auroc(outcome.test) > 0.99


def test_with_fewer_pictures_than_components_what_is_only_rounding_is_not_a_component() -> None:
    outcome = pixel_floor(data(signal=25, sizes=(30, 12, 60)))
    assert macro_auroc(outcome.test) > 0.95
