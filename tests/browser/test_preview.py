"""Previews under a hand: a clicked patch tells what is like it, and a crop finds its box."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, Tab

PageOf = Callable[[str], Path]
GRID = 6  # patches a side of the page of features
PAINTED = "all => all.map((one) => one.toDataURL())"


@pytest.fixture
def features(tab: Tab, page_of: PageOf) -> Page:
    return tab.open(page_of("features"))


def click_patch(page: Page, *, film: int, row: int, column: int) -> None:
    """Counted from 0."""
    button = page.locator("#picks button").nth(film)
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    button.click(position={"x": (column + 0.5) * box["width"] / GRID, "y": (row + 0.5) * box["height"] / GRID})


def test_a_clicked_patch_changes_the_similarity_on_every_film_and_is_told(features: Page) -> None:
    click_patch(features, film=0, row=0, column=0)
    before = features.locator("#picks canvas").evaluate_all(PAINTED)
    click_patch(features, film=1, row=2, column=4)
    after = features.locator("#picks canvas").evaluate_all(PAINTED)
    assert len(before) == 3
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert "row 3, column 5" in features.locator("#told").inner_text()
    assert features.locator("#picks figure").nth(1).get_attribute("class") == "chosen"
    features.mouse.move(1, 1)
    assert features.locator("#told").inner_text().startswith("Chosen:")


def test_the_chosen_patch_is_the_most_alike_to_itself(features: Page) -> None:
    click_patch(features, film=2, row=3, column=3)
    similarity = features.evaluate("[...similarity]")
    place = 2 * GRID * GRID + 3 * GRID + 3
    assert similarity[place] == pytest.approx(1, abs=1e-5)
    assert max(similarity) == pytest.approx(similarity[place], abs=1e-5)


def test_the_address_keeps_the_patch_and_opens_it_again(chromium: Opener, page_of: PageOf) -> None:
    with chromium() as first:
        page = first.open(page_of("features"))
        click_patch(page, film=1, row=5, column=2)
        page.locator("#centred").check()
        address = page.url
        maps = page.locator("#picks canvas").evaluate_all(PAINTED)
    assert address.endswith(f"#film=2&patch={5 * GRID + 2 + 1}&centred=1")
    with chromium() as second:
        page = second.open(address)
        assert page.locator("#centred").is_checked()
        assert page.locator("#picks canvas").evaluate_all(PAINTED) == maps
    assert first.faults + second.faults == []


@pytest.mark.parametrize("words", ["film=99&patch=1", "film=1&patch=-4", "film=x", "%E0%A4%A", "patch=1e9"])
def test_an_address_that_names_no_patch_opens_the_page_all_the_same(words: str, tab: Tab, page_of: PageOf) -> None:
    page = tab.open(f"{page_of('features').as_uri()}#{words}")
    assert page.locator("#told").inner_text().startswith("Chosen:")


def test_arrow_keys_move_the_patch_and_stop_at_the_rim(features: Page) -> None:
    click_patch(features, film=0, row=0, column=1)
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowDown"):
        features.keyboard.press(key)
    features.mouse.move(1, 1)
    assert "row 2, column 1" in features.locator("#told").inner_text()


def test_the_map_can_be_faded_to_the_film(features: Page) -> None:
    features.locator("#strength").focus()
    features.keyboard.press("Home")
    assert features.locator("#picks canvas").first.evaluate("one => getComputedStyle(one).opacity") == "0"


def test_a_finger_chooses_a_patch_too(chromium: Opener, page_of: PageOf) -> None:
    with chromium(width=NARROW_PX, has_touch=True) as tab:
        page = tab.open(page_of("features"))
        button = page.locator("#picks button").nth(1)
        button.scroll_into_view_if_needed()
        box = button.bounding_box()
        button.tap(position={"x": 0.5 * box["width"] / GRID, "y": 0.5 * box["height"] / GRID})
        assert "row 1, column 1" in page.locator("#told").inner_text()
        assert page.locator("#picks figure").nth(1).get_attribute("class") == "chosen"
    assert tab.faults == []


def test_a_crop_under_the_pointer_lights_up_its_box_on_the_film(tab: Tab, page_of: PageOf) -> None:
    page = tab.open(page_of("augmentation"))
    panel = page.locator("section.panel").first
    opacity = "one => getComputedStyle(one).opacity"
    box, other = panel.locator(".boxes .box-1"), panel.locator(".boxes .box-0")
    assert (box.evaluate(opacity), other.evaluate(opacity)) == ("1", "1")
    panel.locator(".crop-1").hover()
    expect(other).to_have_css("opacity", "0.12")
    assert box.evaluate(opacity) == "1"


def test_names_of_films_are_text_and_no_markup(tab: Tab, page_of: PageOf) -> None:
    page = tab.open(page_of("features"))
    assert page.locator("#picks figcaption", has_text="a<b>&").count() == 1
    assert page.locator("figcaption b:has-text('&')").count() == 0
