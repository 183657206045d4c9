"""The settling viewer in a real headless browser: by pointer and keyboard, on every screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ep_neuro.report.viewer import write_view
from tests.helpers.headless import LOW_CONTRAST, SCREENS, SIDEWAYS, show
from tests.helpers.settling_example import NAMES, STEPS, example_view

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LEFT, RIGHT, END, SPACE = "\ue012", "\ue014", "\ue010", "\ue00d"

UNNAMED = """
return [...document.querySelectorAll("button, input, canvas, svg, img")]
  .filter((node) => node.checkVisibility())
  .filter((node) => !(node.ariaLabel || node.alt || node.textContent.trim() ||
    [...(node.labels || [])].some((label) => label.textContent.trim())))
  .map((node) => node.outerHTML);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    place: Path = tmp_path_factory.mktemp("viewer") / "page.html"
    write_view(example_view(), place)
    return place.as_uri()


@pytest.fixture
def opened(browser: Any, page: str) -> Callable[..., Any]:
    """Open the page and wait for its states; `find` gives one element of it."""

    def find(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    def go(screen: str = "desktop", theme: str = "light") -> Callable[[str], Any]:
        show(browser, page, screen, theme)
        until(browser, "return document.documentElement.dataset.ready === 'yes'")
        return find

    return go


def until(browser: Any, question: str) -> None:
    """Wait until the answer is true: the browser calls back."""
    asked = question.removeprefix("return ")
    browser.execute_async_script(
        f"const done = arguments[0], ask = () => ({asked}) ? done() : setTimeout(ask, 20); ask();"
    )


def test_it_is_silent(browser: Any, opened: Any) -> None:
    opened()
    assert browser.get_log("browser") == []


def test_an_image_is_picked_and_the_label_is_told(browser: Any, opened: Any) -> None:
    find = opened()
    find("[name=image][value='2']").click()
    assert "towards 2." in find("#text").text
    assert find("#input").get_attribute("src") == find("[value='2'] + img").get_attribute("src")


def test_the_slider_moves_by_keyboard_and_everything_with_it(browser: Any, opened: Any) -> None:
    find = opened()
    pixels = "return document.querySelector('canvas').toDataURL()"
    slider, before = find("#step"), browser.execute_script(pixels)
    slider.send_keys(RIGHT)
    slider.send_keys(RIGHT)
    assert find("#count").text == f"2 of {STEPS}"
    assert find("#now").text.startswith(f"Step 2 of {STEPS}: the answer is ")
    assert browser.execute_script(pixels) != before
    assert find(".plot i").get_attribute("style") == f"left: {100 * 2 / STEPS:.4f}%;"
    slider.send_keys(END)
    slider.send_keys(LEFT)
    assert slider.get_attribute("aria-valuetext") == f"step {STEPS - 1} of {STEPS}"
    until(browser, f"document.getElementById('said').textContent.startsWith('Step {STEPS - 1}')")


def test_phases_follow_by_arrow_keys_and_by_the_button(browser: Any, opened: Any) -> None:
    find = opened()
    find("[name=phase]").send_keys(RIGHT)
    assert find("#phase-title").text == NAMES[1]
    find("#next").click()
    assert find("#phase-title").text == NAMES[2]
    find("[name=phase][value='3']").send_keys(SPACE)
    assert find("#phase-title").text == NAMES[3]
    assert find(".scale").text.startswith("−0.0")
    assert not find("#next").is_displayed()


def test_it_plays_to_the_end_and_stops(browser: Any, opened: Any) -> None:
    find = opened()
    find("#play").click()
    assert find("#play").text == "Pause"
    until(browser, "document.getElementById('play').textContent === 'Play'")
    assert find("#count").text == f"{STEPS} of {STEPS}"


def test_without_motion_it_plays_a_picture_a_second(browser: Any, opened: Any) -> None:
    find = opened()
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    began = browser.execute_script("play(true); return performance.now()")
    until(browser, "seen.step > 0")
    assert browser.execute_script("return performance.now()") - began > 900
    find("#play").click()
    assert find("#play").text == "Play"


def test_what_can_be_used_or_seen_has_a_name(browser: Any, opened: Any) -> None:
    opened()
    until(browser, "document.getElementById('said').textContent")
    assert browser.execute_script(UNNAMED) == []


@pytest.mark.parametrize("screen", SCREENS)
def test_it_never_scrolls_sideways(browser: Any, opened: Any, screen: str) -> None:
    opened(screen)
    inner, outer = browser.execute_script(SIDEWAYS)
    assert inner <= outer == SCREENS[screen]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(browser: Any, opened: Any, theme: str) -> None:
    opened("desktop", theme)
    found = browser.execute_script(LOW_CONTRAST)
    assert found["texts"] > 40
    assert found["low"] == []
