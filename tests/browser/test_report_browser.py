"""The report in a real headless browser: silent, offline, readable on every screen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ep_neuro.report import write_report
from tests.helpers.headless import LOW_CONTRAST, SCREENS, SIDEWAYS, prefer, show
from tests.helpers.report_example import SECTIONS, example_report

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

TABLE = "return [...document.querySelectorAll('#targets tbody tr')]"

SMALL_TEXT = """
return [...document.querySelectorAll("svg text")]
  .filter((text) => text.textContent.trim())
  .map((text) => {
    const to = text.getScreenCTM();
    return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(to.a, to.b);
  });
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(example_report(), tmp_path_factory.mktemp("report") / "report.html")
    return path.as_uri()


@pytest.fixture(scope="module", params=SCREENS)
def screen(browser: Any, address: str, request: pytest.FixtureRequest) -> str:
    """The page on one screen, opened once for what only looks at it."""
    screen: str = request.param
    show(browser, address, screen)
    return screen


def test_page_is_silent_and_asks_for_nothing_but_itself(browser: Any, address: str) -> None:
    browser.get_log("performance")
    show(browser, address)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = {p["request"]["url"] for p in sent}
    # What chrome:// asks for is the browser's own start page, which may still be loading.
    assert {url for url in asked if not url.startswith(("data:", "chrome://"))} == {address}


def test_every_section_is_there_and_has_a_size(browser: Any, address: str) -> None:
    show(browser, address)
    heights = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('section')]"
        ".map((s) => [s.id, s.getBoundingClientRect().height]))"
    )
    assert set(heights) == set(SECTIONS)
    assert min(heights.values()) > 50


def test_the_table_of_targets_fits_beside_what_did_not_settle(browser: Any, address: str) -> None:
    show(browser, address)
    wide, seen, told = browser.execute_script(
        "const box = document.querySelector('#targets .scroll');"
        "return [box.scrollWidth, box.clientWidth, box.querySelector('td small').innerText]"
    )
    assert wide <= seen
    assert told.split() == ["10.0", "%", "did", "not", "settle"]


def test_page_never_scrolls_sideways(browser: Any, screen: str) -> None:
    inner, outer = browser.execute_script(SIDEWAYS)
    assert outer == SCREENS[screen]
    assert inner <= outer


@pytest.mark.usefixtures("screen")
def test_text_in_figures_is_legible(browser: Any) -> None:
    sizes = browser.execute_script(SMALL_TEXT)
    assert len(sizes) > 50
    assert min(sizes) >= 10.5


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(browser: Any, theme: str) -> None:
    prefer(browser, theme)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[theme]
    found = browser.execute_script(LOW_CONTRAST)
    assert found["texts"] > 200
    assert found["low"] == []


def test_table_sorts_by_number_both_ways_and_keeps_gaps_last(browser: Any, address: str) -> None:
    show(browser, address)
    head = browser.find_elements("css selector", "#targets thead th")[5]
    events = f"{TABLE}.map((row) => row.cells[5].dataset.key)"
    counts = sorted(row.events for row in example_report().rows if row.events is not None)
    for order, expected in (("ascending", counts), ("descending", counts[::-1])):
        head.find_element("tag name", "button").click()
        assert head.get_attribute("aria-sort") == order
        shown = browser.execute_script(events)
        assert [float(key) for key in shown[:-1]] == expected
        assert shown[-1] == ""


def test_table_sorts_by_name_from_the_keyboard(browser: Any, address: str) -> None:
    show(browser, address, "phone")
    button = browser.find_element("css selector", ".sortable thead button")
    button.send_keys("\ue007")
    shown = browser.execute_script(f"{TABLE}.map((row) => row.cells[0].dataset.key)")
    assert shown == sorted(row.label for row in example_report().rows)


def test_table_reads_without_scripts(browser: Any, address: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, address)
        assert browser.find_elements("css selector", ".sortable button") == []
        assert len(browser.find_elements("css selector", "#targets tbody tr")) == 6
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
