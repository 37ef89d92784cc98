"""The map of films under a hand, over HTTP and from a folder on a disk."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, WIDE_PX, Scheme, Tab
from tests.browser.pages import EXPLORED, explored
from tests.browser.reading import reading_faults

PageOf = Callable[[str], Path]
PLACE = (
    "row => { const box = canvas.getBoundingClientRect(); return [box.left + toX(xs[row]), box.top + toY(ys[row])]; }"
)
# The film that lies farthest from its nearest neighbour: a pointer on it can mean no other.
APART = """(() => {
  const gap = (i) => Math.min(...xs.map((x, j) => (j === i ? Infinity : Math.hypot(x - xs[i], ys[j] - ys[i]))));
  return data.ids.map((_, i) => i).filter((i) => i !== 7).reduce((best, i) => (gap(i) > gap(best) ? i : best));
})()"""
INSIDE = """([left, right, top, low]) => data.ids.filter((_, i) => {
  const box = canvas.getBoundingClientRect(), x = box.left + toX(xs[i]), y = box.top + toY(ys[i]);
  return x > left && x < right && y > top && y < low;
})"""


@contextmanager
def served(folder: Path, *, skip: Sequence[int] = ()) -> Iterator[str]:
    """The address of `dinov2 explore`'s server; the pictures of `skip` are gone."""
    from dinov2.explore.exploration import explore
    from tests.explore.test_server import serving

    features, manifest = explored(folder, skip=skip)
    with serving(explore(features, manifest=str(manifest), method="pca", color_by="view")) as server:
        yield server.address


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(params=["served", "folder"])
def shown(request: pytest.FixtureRequest, tab: Tab, page_of: PageOf) -> Page:
    """The page in both of its forms, drawn."""
    tab.open(request.getfixturevalue("address") if request.param == "served" else page_of("explore"))
    return drawn(tab.page)


def drawn(page: Page) -> Page:
    page.locator("html[data-ready=true]").wait_for(state="attached")
    expect(page.locator("#map")).to_have_attribute("data-drawn", str(EXPLORED))
    return page


def id_of(page: Page, row: int) -> str:
    return str(page.evaluate("row => data.ids[row]", row))


def choose_apart(page: Page) -> int:
    row = int(page.evaluate(APART))
    page.mouse.click(*page.evaluate(PLACE, row))
    return row


def test_a_film_under_the_pointer_is_shown_with_its_id_and_colour(shown: Page) -> None:
    row = int(shown.evaluate(APART))
    shown.mouse.move(*shown.evaluate(PLACE, row))
    tip = shown.locator("#tip")
    expect(tip.locator("img")).to_be_visible()
    assert tip.locator("img").evaluate("one => one.naturalWidth") > 0
    assert id_of(shown, row) in tip.inner_text()
    assert "view: " in tip.inner_text()
    shown.mouse.move(3, 3)
    expect(tip).to_be_hidden()


def test_a_click_shows_the_row_and_the_neighbours_and_a_neighbour_leads_on(shown: Page) -> None:
    row = choose_apart(shown)
    film = shown.locator("#film")
    expect(film.locator(".near button")).to_have_count(12)
    assert film.locator("h2").inner_text() == id_of(shown, row)
    cosines = [float(text) for text in film.locator(".near .n").all_inner_texts()]
    assert cosines == sorted(cosines, reverse=True)
    second = film.locator(".near button").nth(0)
    expected = second.get_attribute("title")
    second.click()
    expect(film.locator("h2")).to_have_text(expected)
    expect(film.locator(".whole img")).to_be_visible()


def test_a_part_of_an_id_finds_films_and_enter_takes_the_first(shown: Page) -> None:
    shown.locator("#search").fill("film-1")
    found = shown.locator("#found li")
    expect(found).to_have_count(8)
    shown.keyboard.press("ArrowDown")
    wanted = found.nth(1).inner_text()
    shown.keyboard.press("Enter")
    expect(shown.locator("#film h2")).to_have_text(wanted)
    shown.locator("#search").fill("nobody")
    expect(found).to_have_text("No film has this in its id.")


def test_another_column_colours_the_map_anew(shown: Page) -> None:
    painted = "canvas.toDataURL()"
    before = shown.evaluate(painted)
    assert shown.locator("#key .key em").all_inner_texts() == ["PA", "AP", "missing"]
    shown.locator("#colour").select_option("age")
    expect(shown.locator("#key-name")).to_have_text("age")
    expect(shown.locator("#key-body .ends")).to_contain_text("median 40")
    shown.wait_for_function(f"before => {painted} !== before", arg=before)


def test_a_value_of_the_key_hides_its_films(shown: Page) -> None:
    shown.locator("#key .key button", has_text="PA").click()
    expect(shown.locator("#map")).to_have_attribute("data-drawn", str(EXPLORED // 2))


@pytest.mark.parametrize("tool", ["box", "lasso"])
def test_chosen_films_are_counted_and_saved_as_a_list_of_ids(tool: str, shown: Page, tmp_path: Path) -> None:
    shown.locator(f"[data-tool={tool}]").click()
    box = shown.locator("#map").bounding_box()
    left, top, right, low = box["x"] + 4, box["y"] + 60, box["x"] + box["width"] / 2, box["y"] + box["height"] - 4
    corners = [(left, top), (right, top), (right, low), (left, low)] if tool == "lasso" else [(left, top), (right, low)]
    shown.mouse.move(*corners[0])
    shown.mouse.down()
    for corner in corners[1:]:
        shown.mouse.move(*corner, steps=3)
    shown.mouse.up()
    inside = shown.evaluate(INSIDE, [left, right, top, low])
    assert 0 < len(inside) < EXPLORED
    expect(shown.locator("#selection-count")).to_have_text(f"{len(inside)} of {EXPLORED} films selected")
    with shown.expect_download() as download:
        shown.locator("#save").click()
    download.value.save_as(tmp_path / "selection.csv")
    with (tmp_path / "selection.csv").open(newline="") as stream:
        assert [row["image_id"] for row in csv.DictReader(stream)] == inside
    shown.keyboard.press("Escape")
    expect(shown.locator("#selection")).to_be_hidden()


def test_wheel_and_keys_zoom_and_0_shows_the_whole_again(shown: Page) -> None:
    shown.locator("#map").hover()
    shown.mouse.wheel(0, -600)
    shown.wait_for_function("view.scale > 1.5 * view.whole")
    shown.locator("#map").focus()
    shown.keyboard.press("+")
    shown.keyboard.press("0")
    shown.wait_for_function("view.scale === view.whole")


def test_an_address_opens_on_its_film(tab: Tab, address: str) -> None:
    page = drawn(tab.open(f"{address}#film=film-3"))
    expect(page.locator("#film h2")).to_have_text("film-3")
    row = dict(zip(*[iter(page.locator("#film td").all_inner_texts())] * 2, strict=True))
    assert row["note"] == "<b>a note</b>"  # and no markup
    assert row["age"] == "23.5"


def test_a_film_whose_picture_is_gone_says_so(chromium: Opener, tmp_path: Path) -> None:
    with served(tmp_path, skip=[7]) as address, chromium() as tab:
        page = drawn(tab.open(f"{address}#film=film-7"))
        expect(page.locator("#film .whole")).to_contain_text("film-7.png")
        assert [line for line in tab.faults if "404" not in line] == []  # the browser tells of the answer


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE_PX, NARROW_PX])
def test_the_served_page_with_a_chosen_film_is_readable(
    width: int, scheme: Scheme, chromium: Opener, address: str
) -> None:
    with chromium(width=width, scheme=scheme) as tab:
        page = drawn(tab.open(f"{address}#film=film-3"))
        expect(page.locator(".near img").last).to_be_attached()
        assert reading_faults(page) == []
    assert tab.faults == []
    assert {request.split("/")[2] for request in tab.requests if request.startswith("http")} == {address.split("/")[2]}


def test_a_finger_chooses_a_film_and_two_fingers_are_not_needed(chromium: Opener, address: str) -> None:
    with chromium(width=NARROW_PX, has_touch=True) as tab:
        page = drawn(tab.open(address))
        row = int(page.evaluate(APART))
        page.touchscreen.tap(*page.evaluate(PLACE, row))
        expect(page.locator("#film h2")).to_have_text(id_of(page, row))
    assert tab.faults == []
