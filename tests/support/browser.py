"""A headless Chromium, and pages for it from the loopback interface."""

import mimetypes
import shutil
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from support.proxy import Reply, serving

SCRIPT_SECONDS = 60


@contextmanager
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # Root has no sandbox, and a container's /dev/shm is small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(SCRIPT_SECONDS)
    driver.set_page_load_timeout(SCRIPT_SECONDS)
    try:
        yield driver
    finally:
        driver.quit()


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
