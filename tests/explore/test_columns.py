"""Any column of a manifest becomes colours, or says why it cannot."""

import numpy as np
import pyarrow as pa
import pytest

from dinov2.errors import ConfigError
from dinov2.explore.columns import MISSING, Category, Number, choose, colourings

TABLE = pa.table(
    {
        "image_id": [f"film-{row}" for row in range(200)],
        "view": ["PA", "AP", "PA", "", None] * 40,
        "icu": [0, 1, None, 1, 0] * 40,
        "age": [None, *range(199)],
        "ok": [True, False] * 100,
        "dose": [float("nan"), float("inf"), *np.linspace(0, 1, 198)],
        "empty": pa.nulls(200, pa.string()),
        "boxes": [[1, 2]] * 200,
    }
)


def test_words_are_categories_the_commonest_first_and_blank_cells_are_missing() -> None:
    view = {one.name: one for one in colourings(TABLE)[0]}["view"]
    assert isinstance(view, Category)
    assert view.values == ("PA", "AP")
    assert view.codes[:5].tolist() == [0, 1, 0, MISSING, MISSING]


def test_few_numbers_and_truth_values_are_categories_in_order() -> None:
    found = {one.name: one for one in colourings(TABLE)[0]}
    icu, ok = found["icu"], found["ok"]
    assert isinstance(icu, Category)
    assert isinstance(ok, Category)
    assert icu.values == ("0", "1")
    assert icu.codes[:5].tolist() == [0, 1, MISSING, 1, 0]
    assert set(ok.values) == {"true", "false"}


def test_many_numbers_are_a_scale_whose_ends_leave_out_the_tails() -> None:
    found = {one.name: one for one in colourings(TABLE)[0]}
    age, dose = found["age"], found["dose"]
    assert isinstance(age, Number)
    assert isinstance(dose, Number)
    assert np.isnan(age.values[0])
    assert 0 < age.low < age.high < 198
    assert np.isnan(dose.values[:2]).all()
    assert 0 <= dose.low < dose.high <= 1


def test_columns_that_name_films_or_hold_nothing_or_lists_are_left_out_with_the_reason() -> None:
    _, refused = colourings(TABLE)
    assert "200 values for 200 films" in refused["image_id"]
    assert refused["empty"] == "is empty"
    assert refused["boxes"] == "holds no single value a film"


def test_the_asked_column_is_taken_and_one_that_cannot_colour_is_refused_with_the_others() -> None:
    found, refused = colourings(TABLE)
    assert choose(found, refused, asked=None) == "view"
    assert choose(found, refused, asked="age") == "age"
    with pytest.raises(ConfigError, match=r"--color-by image_id: .* it names films, not groups. Choose one of view"):
        choose(found, refused, asked="image_id")
    with pytest.raises(ConfigError, match=r"no column sex\. Choose one of"):
        choose(found, refused, asked="sex")
