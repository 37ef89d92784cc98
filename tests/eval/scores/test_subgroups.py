"""Scores by group, and the gaps between groups."""

from dataclasses import replace

import numpy as np
import pytest

from dinov2.eval.scores import MACRO, age_bands, auroc, score
from dinov2.eval.scores.subgroups import grouped
from tests.eval.scores.made import multilabel, segmentations


def test_ages_become_bands_and_what_is_no_age_becomes_nothing() -> None:
    ages = ["0", "17", "17.9", "18", "39", "40", "64", "65", "99", "057Y", "008M", "", "unknown", "-3", "411"]
    bands = ["0-17", "0-17", "0-17", "18-39", "18-39", "40-64", "40-64", "65+", "65+", "40-64", "0-17", "", "", "", ""]
    assert age_bands(ages).tolist() == bands


def test_a_column_of_ages_is_banded_and_one_of_many_values_is_no_grouping() -> None:
    many = np.asarray([str(i) for i in range(90)])
    assert list(grouped("patient_age", many)) == ["0-17", "18-39", "40-64", "65+"]
    assert grouped("site", many) == {}
    assert grouped("stage", np.asarray(["1", "2", "1"])).keys() == {"1", "2"}
    card = score(replace(multilabel(num=90), groups={"site": many, "sex": np.full(90, "F")}), draws=5)
    assert any("by site" in remark and "90 values" in remark for remark in card.remarks)
    assert any("by sex" in remark and "same value" in remark for remark in card.remarks)


def test_the_score_of_a_group_is_the_score_of_its_pictures() -> None:
    said = multilabel()
    card = score(said, draws=5)
    rows = said.groups["sex"] == "F"
    for i, name in enumerate(said.classes):
        found = card.find("auroc", name, column="sex", group="F")
        assert found.value == pytest.approx(auroc(said.labels[rows, i], said.scores[rows, i]))
        assert found.num_positive == int(np.nansum(said.labels[rows, i]))
    sizes = {size.group: size.num_pictures for size in card.groups}
    stated = ~np.isnan(said.labels).all(axis=1)
    assert sizes == {"F": int((rows & stated).sum()), "M": int((~rows & stated).sum())}


def test_a_planted_gap_is_found_with_its_sign_and_an_interval_that_leaves_out_zero() -> None:
    said = multilabel(num=600, num_patients=600, signal=3.0)
    worse = said.groups["sex"] == "M"
    noise = np.random.default_rng(0).random(said.scores.shape).astype(np.float32)
    said = replace(said, scores=np.where(worse[:, None], noise, said.scores))
    found = next(gap for gap in score(said, draws=200).gaps if gap.class_name == MACRO and gap.name == "auroc")
    assert (found.best, found.worst) == ("F", "M")
    assert found.value.low > 0.2
    assert found.classes == said.classes


def test_a_group_that_is_too_small_for_the_gap_is_named() -> None:
    said = multilabel(num=300)
    sites = np.asarray(["large", "middle"] * 150)
    sites[:6] = "tiny"
    card = score(replace(said, groups={"site": sites}), draws=20)
    found = next(gap for gap in card.gaps if gap.class_name == MACRO and gap.name == "auroc")
    assert found.left_out == ("tiny",)
    assert {found.best, found.worst} == {"large", "middle"}
    assert card.find("auroc", column="site", group="tiny") is not None


def test_pictures_whose_group_is_not_known_are_in_none() -> None:
    said = multilabel(num=200)
    sex = said.groups["sex"].copy()
    sex[:30] = ""
    card = score(replace(said, groups={"sex": sex}), draws=5)
    assert sum(size.num_pictures for size in card.groups) <= 170
    assert {size.group for size in card.groups} == {"F", "M"}


def test_segmentations_are_scored_by_group_too() -> None:
    said = segmentations(num=60, groups={"view": np.asarray(["AP", "PA"] * 30)})
    card = score(said, draws=20)
    assert {gap.class_name for gap in card.gaps if gap.name == "dice"} == {MACRO, "lungs", "heart"}
    assert card.find("dice", "lungs", column="view", group="AP").value > 0
