"""A report under a hand: what is pointed at says its value, runs can be put out, looks can be turned."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, Tab
from tests.browser.pages import LONG_NAME

PageOf = Callable[[str], Path]


@pytest.fixture
def report(tab: Tab, page_of: PageOf) -> Page:
    return tab.open(page_of("report"))


@pytest.fixture
def reports(tab: Tab, page_of: PageOf) -> Page:
    return tab.open(page_of("reports"))


def chart_of(page: Page, title: str) -> Locator:
    return page.locator("figure.chart", has=page.locator("h3", has_text=title)).first


def values_of(figure: Locator) -> list[tuple[float, float]]:
    """Step and value of what a chart's first line tells under a pointer."""
    points = figure.locator("[data-points]").first.evaluate("one => JSON.parse(one.dataset.points)")
    return [(point[1], point[2]) for point in points]


def test_a_curve_tells_step_and_value_under_the_pointer_and_marks_the_step_everywhere(report: Page) -> None:
    figure = chart_of(report, "Total loss")
    svg = figure.locator("svg")
    svg.hover()
    tip = figure.locator(".tip")
    expect(tip).to_be_visible()
    said = tip.inner_text().splitlines()
    step = float(re.sub(r"[^\d]", "", said[0]))
    value = float(re.search(r"-?[\d.]+", said[1].replace(",", ""))[0])
    of_step = dict(values_of(figure))
    assert step in of_step
    assert value == pytest.approx(of_step[step], rel=1e-3)
    marked = report.locator("figure.chart svg .cross").evaluate_all("all => all.map((one) => one.getAttribute('x1'))")
    assert len(marked) > 5
    assert len(set(marked)) == 1
    report.mouse.move(2, 2)
    expect(tip).to_be_hidden()


def test_a_tip_stays_inside_its_chart_at_both_ends(report: Page) -> None:
    figure = chart_of(report, "Total loss")
    box = figure.locator("svg").bounding_box()
    for share in (0.13, 0.99):
        figure.locator("svg").hover(position={"x": box["width"] * share, "y": box["height"] / 2})
        inside = figure.locator(".tip").evaluate(
            "one => { const tip = one.getBoundingClientRect(), all = one.parentElement.getBoundingClientRect();"
            " return tip.left >= all.left && tip.right <= all.right; }"
        )
        assert inside


def test_arrow_keys_walk_along_a_curve(report: Page) -> None:
    figure = chart_of(report, "Total loss")
    figure.locator("svg").focus()
    steps = []
    for _ in range(3):
        report.keyboard.press("ArrowRight")
        steps.append(float(re.sub(r"[^\d]", "", figure.locator(".tip div").first.inner_text())))
    report.keyboard.press("ArrowLeft")
    back = float(re.sub(r"[^\d]", "", figure.locator(".tip div").first.inner_text()))
    assert steps == sorted(set(steps))
    assert back == steps[1]


def test_the_slider_turns_every_look_and_says_its_step(report: Page) -> None:
    player, maps = report.locator(".player").first, report.locator(".looks u")
    expect(player).to_be_visible()
    places = "all => all.map((one) => getComputedStyle(one).backgroundPosition)"
    label = player.locator("b")
    newest, newest_label = maps.evaluate_all(places), label.inner_text()
    player.locator("input").focus()
    report.keyboard.press("Home")
    oldest = maps.evaluate_all(places)
    assert len(oldest) > 3
    assert all(one != other for one, other in zip(newest, oldest, strict=True))
    assert label.inner_text() != newest_label
    report.keyboard.press("End")
    assert maps.evaluate_all(places) == newest


def test_play_goes_through_the_looks_and_stops_at_the_newest(report: Page) -> None:
    player = report.locator(".player").first
    newest = player.locator("b").inner_text()
    player.get_by_role("button", name="play").click()
    expect(player.get_by_role("button")).to_have_text("pause")
    expect(player.locator("b")).not_to_have_text(newest)
    expect(player.get_by_role("button")).to_have_text("play")
    expect(player.locator("b")).to_have_text(newest)


def test_a_button_of_the_legend_puts_a_run_out_of_all_charts_and_tips(reports: Page) -> None:
    button = reports.locator(".legend button", has_text=LONG_NAME)
    run = button.get_attribute("data-run")
    lines = reports.locator(f'figure.chart [data-of="{run}"]')
    assert lines.first.is_visible()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert not any(one.is_visible() for one in lines.all())
    figure = chart_of(reports, "Total loss")
    figure.locator("svg").hover()
    expect(figure.locator(".tip")).to_be_visible()
    assert LONG_NAME not in figure.locator(".tip").inner_text()
    button.click()
    assert lines.first.is_visible()


def test_a_run_that_has_only_begun_has_a_page_beside_the_others(reports: Page) -> None:
    assert reports.locator("#runs + .panel tr", has_text="begun").count() == 1
    assert reports.locator(".legend button").count() == 3


def test_chapters_are_led_to(report: Page) -> None:
    for link in report.locator("nav a").all():
        target = link.get_attribute("href")
        assert report.locator(target).count() == 1, target
    report.locator("nav a").last.click()
    assert report.evaluate("scrollY") > 300


def test_without_script_all_but_the_tips_is_there(chromium: Opener, page_of: PageOf) -> None:
    with chromium(width=NARROW_PX, has_script=False) as tab:
        page = tab.open(page_of("report"))
        assert page.locator("figure.chart svg").first.is_visible()
        assert page.locator(".looks u").first.is_visible()
        assert not page.locator(".player").first.is_visible()
    assert tab.faults == []
