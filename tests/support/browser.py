"""Debian's Chromium, driven by Selenium, that notes what a page tries and may not."""

import base64
import struct
import zlib
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


# The most frequent colours, those that are farthest from them, and each pixel's nearest of these.
PALETTE = """
const [picture, done] = arguments;
const image = new Image();
image.onload = () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const channels = pixel => [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255];
  const sorted = [...counts].sort((one, other) => other[1] - one[1]).map(([pixel]) => channels(pixel));
  const distance = ([r, g, b], [x, y, z]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
  const palette = sorted.slice(0, 32), rest = sorted.slice(32, 4000);
  const gaps = rest.map(colour => Math.min(...palette.map(other => distance(colour, other))));
  while (palette.length < 56 && palette.length < sorted.length) {
    const farthest = rest[gaps.indexOf(Math.max(...gaps))];
    palette.push(farthest);
    rest.forEach((colour, at) => { gaps[at] = Math.min(gaps[at], distance(colour, farthest)); });
  }
  const nearest = new Map();
  const index = pixel => {
    if (!nearest.has(pixel)) {
      const far = palette.map(colour => distance(colour, channels(pixel)));
      nearest.set(pixel, far.indexOf(Math.min(...far)));
    }
    return nearest.get(pixel);
  };
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(index(pixel));
  done({width: image.width, height: image.height, palette, pixels: btoa(text)});
};
image.src = "data:image/png;base64," + picture;
"""


def shrink(driver, path):
    """Writes a picture again with 56 colours: it is for documents, and every clone has it."""
    driver.get("about:blank")
    read = driver.execute_async_script(PALETTE, base64.b64encode(path.read_bytes()).decode())
    width, height, pixels = read["width"], read["height"], base64.b64decode(read["pixels"])
    rows = b"".join(b"\0" + pixels[row * width:(row + 1) * width] for row in range(height))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = bytes(value for colour in read["palette"] for value in colour)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", palette)
                     + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
