"""docs/PLAYERS.md: its snippets, run in Chromium against the one-machine stack, send what the page says."""

import json
import re

import pytest

from support.browser import chromium, console, site
from support.stack import FAST, REPOSITORY, wait_for

PAGE = REPOSITORY / "docs/PLAYERS.md"
LIBRARIES = REPOSITORY / "tests/players"
WRITE_KEY = "web-key-0123456789"

# What one viewing with a seek is in each vocabulary, and the member that counts its events.
MUX = {"viewstart", "play", "playing", "seeking", "seeked", "ended"}
CMCD_STATES = {"s", "p", "k", "e"}
OWN = {"play", "playing", "seek", "pause", "ended"}
RECIPES = {
    "mux-embed": ("xid", "xsqno", lambda event: event["e"], MUX),
    "dash.js": ("sid", "sn", lambda event: event.get("sta"), CMCD_STATES),
    "hls.js": ("sid", "sn", lambda event: event.get("sta"), CMCD_STATES),
    "Shaka Player": ("session_id", "sequence", lambda event: event["type"], OWN),
    "Video.js": ("session_id", "sequence", lambda event: event["type"], OWN),
    "Plain JavaScript": ("session_id", "sequence", lambda event: event["type"], OWN),
}


def sections():
    """The page's sections that have snippets, each with them."""
    parts = re.split(r"^###? (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    found = {title: re.findall(r"```html\n(.*?)```", text, re.DOTALL) for title, text in zip(parts[1::2], parts[2::2])}
    return {title: snippets for title, snippets in found.items() if snippets}


SNIPPETS = [
    pytest.param(title, snippet, id=f"{title}-{number}") for title, snippets in sections().items()
    for number, snippet in enumerate(snippets, 1)
]


@pytest.fixture(scope="module")
def browser():
    assert (LIBRARIES / "node_modules").is_dir(), "`make tests/players/node_modules/installed` installs the players"
    with chromium() as driver:
        yield driver


def test_each_recipe_has_a_snippet():
    assert sections().keys() == RECIPES.keys()


def test_the_page_names_the_versions_that_are_tried():
    versions = json.loads((LIBRARIES / "package.json").read_text())["devDependencies"]
    text = PAGE.read_text().lower()
    names = {"dashjs": "dash.js", "shaka-player": "shaka player"}
    for package, version in versions.items():
        is_named = re.search(rf"\| \[{re.escape(names.get(package, package))}\]\(#[a-z-]+\) {re.escape(version)} \|", text)
        assert is_named or package == "typescript", package


@pytest.mark.parametrize("title, snippet", SNIPPETS)
def test_a_viewing_lands_as_one_session(browser, fresh_stack, title, snippet):
    land_a_viewing(browser, fresh_stack(), title, snippet)


@pytest.mark.parametrize("title", ["mux-embed", "dash.js", "hls.js"])
def test_a_viewing_lands_with_the_app_of_the_key_in_its_address(browser, fresh_stack, title):
    stack = fresh_stack(parameters=f"{FAST} WriteKeys=web={WRITE_KEY}")
    snippet = sections()[title][0]
    # mux-embed takes http where its domain ends in `localhost`.
    keyed = snippet.replace('"events.example.com"', f'"events.example.com/?key={WRITE_KEY}&over=localhost"')
    keyed = keyed.replace("events.example.com/events", f"events.example.com/events?key={WRITE_KEY}")
    assert keyed.count(WRITE_KEY) == 1
    land_a_viewing(browser, stack, title, keyed)
    assert {line.json["app"] for line in stack.lines()} == {"web"}


def land_a_viewing(browser, stack, title, snippet):
    session, counter, name, wanted = RECIPES[title]

    def landed():
        return [line.json["event"] for line in stack.lines()]

    def said():
        return "\n".join([console(browser), *map(json.dumps, landed())])

    def has_all():
        return wanted <= {name(event) for event in landed()}

    def is_whole():
        numbers = {event[counter] for event in landed()}
        return has_all() and len(numbers) == max(numbers) - min(numbers) + 1

    # What dash.js has under way is lost with its page.
    watch(browser, stack, snippet, said, has_all if title == "dash.js" else lambda: True)
    # Reports that leave at once need not land in their order.
    wait_for(is_whole, 30, said)
    events = landed()
    assert len({event[session] for event in events}) == 1, said()
    assert "bread-101" in {event.get("vid") or event.get("cid") or event.get("video_id") for event in events}
    assert stack.lines("rejected") == []


def watch(browser, stack, snippet, said, may_leave=lambda: True):
    """Plays the clip on the snippet's page, seeks, watches to the end and leaves when it may."""
    snippet = snippet.replace("https://events.example.com", f"http://localhost:{stack.port}")
    pages = {"/": "<!doctype html><link rel=icon href=data:,>" + snippet.replace("events.example.com", f"localhost:{stack.port}")}
    folders = {"/node_modules/": LIBRARIES, "/clip/": REPOSITORY / "tests/fixtures", "/clients/": REPOSITORY}

    def video(expression):
        return browser.execute_script(f"const video = document.querySelector('video'); return {expression}")

    with site(pages, folders) as origin:
        browser.get(origin)
        wait_for(lambda: video("video.readyState >= 2"), 20, said)
        video("video.play()")
        wait_for(lambda: video("video.currentTime > 1"), 20, said)
        video("video.currentTime = 7")
        wait_for(lambda: video("video.ended"), 20, said)
        wait_for(may_leave, 30, said)
        browser.get("about:blank")
