"""The report in a real headless browser: silent, offline, readable on every screen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ep_neuro.report import write_report
from tests.helpers.report_example import SECTIONS, example_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402  # only once selenium is there

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
SCREENS = {"phone": 360, "desktop": 1100}
TABLE = "return [...document.querySelectorAll('#targets tbody tr')]"

LOW_CONTRAST = """
const light = (text) => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = text.match(/[\\d.]+/g).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const seen = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || node.closest("script")) continue;
  const style = getComputedStyle(node);
  const ink = node.closest("svg") ? style.fill : style.color;
  const [low, high] = [light(ink), light(ground(node))].sort((a, b) => a - b);
  seen.push([(high + 0.05) / (low + 0.05), walk.currentNode.data.trim(), ink]);
}
return {texts: seen.length, low: seen.filter(([ratio]) => !(ratio >= 4.5))};
"""

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium or chromedriver is not on PATH (Debian: chromium, chromium-driver)")
    profile: Path = tmp_path_factory.mktemp("profile")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


def show(browser: Any, address: str, screen: str = "desktop", theme: str = "light") -> None:
    """Open the page on a screen in a colour scheme."""
    scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    size = {"width": SCREENS[screen], "height": 800, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", size | {"mobile": screen == "phone"}
    )
    browser.get(address)


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


@pytest.mark.parametrize("screen", SCREENS)
def test_page_never_scrolls_sideways(browser: Any, address: str, screen: str) -> None:
    show(browser, address, screen)
    inner, outer = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert outer == SCREENS[screen]
    assert inner <= outer


@pytest.mark.parametrize("screen", SCREENS)
def test_text_in_figures_is_legible(browser: Any, address: str, screen: str) -> None:
    show(browser, address, screen)
    sizes = browser.execute_script(SMALL_TEXT)
    assert len(sizes) > 50
    assert min(sizes) >= 10.5


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(browser: Any, address: str, theme: str, screen: str) -> None:
    show(browser, address, screen, theme)
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
