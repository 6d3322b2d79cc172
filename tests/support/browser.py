"""A headless Chromium, and pages for it from the loopback interface."""

import mimetypes
import shutil
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from support import held_port
from support.proxy import Reply, serving

SCRIPT_SECONDS = 60
# Chromedriver's own 60 are little while others build; after 120 its client gives up.
START_SECONDS = 110

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
    """A driver whose pages note what they try and may not."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # Root has no sandbox, and a container's /dev/shm is small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                     "--autoplay-policy=no-user-gesture-required"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("browserStartupTimeout", 1000 * START_SECONDS)
    with held_port.hold() as held:
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver"), held_port.number(held)))
    try:
        driver.set_script_timeout(SCRIPT_SECONDS)
        driver.set_page_load_timeout(SCRIPT_SECONDS)
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


@contextmanager
def site(pages, folders):
    """The `http://host:port` of pages by their paths, and of the files below some paths, each with the folder that has that path."""

    def reply(request):
        path = request.path.partition("?")[0]
        if path in pages:
            return found(pages[path].encode(), "text/html")
        folder = next((folder for prefix, folder in folders.items() if path.startswith(prefix)), None)
        file = folder and (folder / path.lstrip("/")).resolve()
        if not file or not file.is_relative_to(folder) or not file.is_file():
            return Reply(404)
        return ranged(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream", request)

    with serving(reply) as address:
        yield f"http://{address}"


def found(body, media_type):
    return Reply(200, [("content-type", media_type), ("cache-control", "no-store")], body)


def ranged(body, media_type, request):
    """Media elements ask for ranges, and seek only where they get them."""
    asked = request.headers.get("range", "").removeprefix("bytes=")
    if not asked:
        return found(body, media_type)
    first, _, last = asked.partition("-")
    start, end = int(first), min(int(last or len(body) - 1), len(body) - 1)
    headers = [("content-type", media_type), ("content-range", f"bytes {start}-{end}/{len(body)}"), ("accept-ranges", "bytes")]
    return Reply(206, headers, body[start:end + 1])


def console(driver):
    """What the page's console said, for failure messages."""
    return "\n".join(entry["message"] for entry in driver.get_log("browser"))
