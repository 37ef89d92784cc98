import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2.errors import ConfigError
from dinov2.eval.features import Labelled
from dinov2.eval.probes.fewshot import Curve, FewShot, Point, draw_rows, few_shot
from dinov2.eval.probes.fewshot_curve import write_curve
from dinov2.eval.probes.judging import About
from dinov2.eval.probes.linear_inputs import InputChoice
from dinov2.eval.probes.logreg import LogregProbe, LogregSettings
from tests.eval.probes.planted import CLASSES, examples_of, splits

RNG = np.random.default_rng(0)
ABOUT = About(probe="fewshot", backbone="planted", settings={})
C1 = [{"C": 1.0}]


class Watching(LogregProbe):
    """Notes the patients that it was fitted on."""

    def __init__(self) -> None:
        super().__init__(
            settings=LogregSettings(task="multilabel", num_classes=3, scaling="l2"), choice=InputChoice(1, False)
        )
        self.fitted_on: list[set[str]] = []

    def fit(self, candidates: Sequence[object], split: Labelled) -> Sequence[object]:
        self.fitted_on.append(set(split.examples.patients.tolist()))
        return super().fit(candidates, split)


def run(probe: LogregProbe, **options: object) -> FewShot:
    given = {"about": ABOUT, "candidates": C1, "splits": splits(), "shots": (1, 2, 8), "draws": 3} | options
    return few_shot(lambda _: probe, **given)


def many_pictures(task: str = "multilabel"):
    """40 patients with three pictures each."""
    patients = [f"p{row // 3}" for row in range(120)]
    labels = (RNG.random((120, 3)) < 0.15).astype(np.float32)
    if task == "multiclass":
        labels = (np.arange(120) // 3 % 3).astype(np.float32)
    return examples_of(labels, name="train", task=task, patients=patients)


def test_patients_are_drawn_with_all_their_pictures() -> None:
    examples = many_pictures()
    rows = draw_rows(examples, shots=4, seed=0)
    chosen = set(examples.patients[rows].tolist())
    assert len(rows) == 3 * len(chosen)
    assert len(chosen) <= 4 * (len(CLASSES) + 1)


def test_every_class_has_its_patients_and_a_multi_label_task_has_some_without_any() -> None:
    examples = many_pictures()
    rows = draw_rows(examples, shots=3, seed=1)
    for place in range(3):
        assert len(set(examples.patients[rows][examples.labels[rows, place] == 1].tolist())) >= 3
    without = [
        one for one in set(examples.patients[rows].tolist()) if not examples.labels[examples.patients == one].any()
    ]
    assert len(without) == 3


def test_of_many_classes_each_has_exactly_its_patients() -> None:
    examples = many_pictures("multiclass")
    rows = draw_rows(examples, shots=5, seed=2)
    for place in range(3):
        assert len(set(examples.patients[rows][examples.labels[rows] == place].tolist())) == 5


def test_a_larger_draw_holds_the_smaller_one_and_another_seed_is_another_draw() -> None:
    examples = many_pictures()
    small, large = (set(draw_rows(examples, shots=shots, seed=0).tolist()) for shots in (2, 4))
    assert small < large
    assert small != set(draw_rows(examples, shots=2, seed=1).tolist())


def test_the_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    examples = many_pictures()
    order = RNG.permutation(120)
    straight = set(examples.ids[draw_rows(examples, shots=3, seed=0)].tolist())
    mixed = examples.take(order)
    assert straight == set(mixed.ids[draw_rows(mixed, shots=3, seed=0)].tolist())


def test_a_class_with_fewer_patients_gives_all_it_has() -> None:
    labels = np.zeros((30, 3), dtype=np.float32)
    labels[:2, 0] = 1
    rows = draw_rows(examples_of(labels, name="train"), shots=8, seed=0)
    assert {0, 1} <= set(rows.tolist())
    assert len(rows) == 2 + 8


@pytest.mark.parametrize("choose", ["fixed", "few"])
def test_the_full_validation_split_never_joins_the_few_pictures_that_are_fitted_on(choose: str) -> None:
    probe = Watching()
    run(probe, choose=choose, candidates=C1 if choose == "fixed" else [{"C": 0.1}, {"C": 1.0}])
    assert len(probe.fitted_on) == 9
    assert all(patient.startswith("train") for patients in probe.fitted_on for patient in patients)
    assert max(len(patients) for patients in probe.fitted_on) <= 8 * 4


def test_more_patients_score_better_and_the_curve_tells_the_spread() -> None:
    train, val, test = splits(signal=0.7)
    found = run(Watching(), splits=(train, val, test), shots=(1, 16), draws=5)
    means = {shots: scores.mean() for shots, scores in found.curve}
    assert means[16] > means[1] + 0.05
    assert len(found.curve.points) == 10
    assert found.curve.told()[0].startswith("1 patients per class: 0.")
    assert "over 5 draws" in found.curve.told()[0]
    assert found.typical.settings["few-shot curve on test"] == found.curve.told()


def test_the_typical_draw_is_the_median_of_those_with_most_patients() -> None:
    found = run(Watching(), shots=(1, 2), draws=3)
    scores = sorted((point.score, point.draw) for point in found.curve.points if point.shots == 2)
    assert found.typical.settings["shown"].startswith(f"draw {scores[1][1]},")
    assert found.typical.counts["train"] == next(
        point.num_pictures for point in found.curve.points if point.shots == 2 and point.draw == scores[1][1]
    )


def test_what_cannot_be_done_is_refused() -> None:
    train, val, test = splits()
    with pytest.raises(ConfigError, match="no test split"):
        run(Watching(), splits=(train, val, None))
    with pytest.raises(ConfigError, match="--choose few"):
        run(Watching(), candidates=[{"C": 0.1}, {"C": 1.0}])
    with pytest.raises(ConfigError, match="no such split"):
        run(Watching(), splits=(train, None, test), choose="few")
    with pytest.raises(ConfigError, match="1 or more"):
        run(Watching(), shots=(0, 1))
    unknown = replace(test.examples, labels=np.ones_like(test.examples.labels))
    with pytest.raises(ConfigError, match="no draw has a test score"):
        run(Watching(), splits=(train, val, Labelled(test.features, unknown)))


def test_the_curve_is_written_as_a_table_with_a_line_per_draw_and_a_picture(tmp_path: Path) -> None:
    points = tuple(
        Point(
            shots=shots, draw=draw, num_patients=3 * shots, num_pictures=5 * shots, score=0.5 + shots / 40 + draw / 90
        )
        for shots in (1, 4, 16)
        for draw in range(3)
    )
    table, picture = write_curve(
        Curve(metric="macro_auroc", points=points), tmp_path, title="planted", floors=[("pixels", 0.6)]
    )
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [point.score for point in points]
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).min() < 100
