"""Pictures of pages, for documents."""

import base64
import io

from PIL import Image

# Every clone has the pictures.
COLOURS = 128


def screenshot(driver, path, selector=None):
    """The whole page, or an element of it, as a PNG."""
    box = driver.execute_script("""
        const box = arguments[0] ? document.querySelector(arguments[0]).getBoundingClientRect() : document.documentElement.getBoundingClientRect();
        return {x: Math.max(0, box.x + scrollX - 8), y: Math.max(0, box.y + scrollY - 8),
                width: Math.min(box.width + 16, document.documentElement.scrollWidth), height: box.height + 16};""", selector)
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": box | {"scale": 1}})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(base64.b64decode(taken["data"]))).quantize(COLOURS).save(path, optimize=True)
