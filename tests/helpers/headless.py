"""A real headless browser for tests of pages: how it starts, shows a page, and measures it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

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

SIDEWAYS = "return [document.documentElement.scrollWidth, window.innerWidth]"
"""Width of the page, and of the window."""


def started(profile: Path) -> Any:
    """A browser with `profile` as its own folder; skips the test where there is none."""
    reason = "selenium is not installed"
    webdriver = pytest.importorskip("selenium.webdriver", reason=reason)
    service = pytest.importorskip("selenium.webdriver.chrome.service", reason=reason)
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium or chromedriver is not on PATH (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=service.Service(DRIVER))
    driver.set_page_load_timeout(30)
    return driver


def prefer(browser: Any, theme: str) -> None:
    """Let the page be seen in a colour scheme."""
    scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)


def show(browser: Any, address: str, screen: str = "desktop", theme: str = "light") -> None:
    """Open the page on a screen in a colour scheme."""
    prefer(browser, theme)
    size = {"width": SCREENS[screen], "height": 800, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", size | {"mobile": screen == "phone"}
    )
    browser.get(address)
