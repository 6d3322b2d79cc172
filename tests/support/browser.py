"""Debian's Chromium, driven by Selenium, that notes what a page tries and may not."""

import base64
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

# Runs before the page's own script.
NOTES = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", event => __violations.push(event.violatedDirective + " " + event.blockedURI));
window.__errors = [];
window.addEventListener("error", event => __errors.push(String(event.message)));
window.addEventListener("unhandledrejection", event => __errors.push(String(event.reason)));
"""


@contextmanager
def chromium(width=1280, height=1000, scheme="light"):
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    # In CI it runs as root and in a container, where its own sandbox can't.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTES})
        resize(driver, width, height)
        scheme_of(driver, scheme)
        yield driver
    finally:
        driver.quit()


def resize(driver, width, height=1000):
    """Of the page, which may be narrower than a window can be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme_of(driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def screenshot(driver, path, selector=None):
    """The whole page, or an element of it, as a PNG."""
    box = driver.execute_script("""
        const box = arguments[0] ? document.querySelector(arguments[0]).getBoundingClientRect() : document.documentElement.getBoundingClientRect();
        return {x: Math.max(0, box.x + scrollX - 8), y: Math.max(0, box.y + scrollY - 8),
                width: Math.min(box.width + 16, document.documentElement.scrollWidth), height: box.height + 16};""", selector)
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": box | {"scale": 1}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(taken["data"]))
