import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";

import { Playhead, conclude, fitting } from "./playhead.js";

const all = (count) => [...Array(count).keys()];

// As in browsers.
Object.defineProperty(navigator, "onLine", { value: true, writable: true });

test("an answer of 200 confirms all but what it rejects", () => {
  const rejected = [{ index: 1, reason: "not_an_object" }];
  assert.deepEqual(conclude(200, { accepted: 2, rejected }, 3), { rejected, again: [] });
});

test("an answer of 503 names what is to be sent again", () => {
  const said = { accepted: 1, not_stored: [0, 2], rejected: [], error: { code: "not_stored" } };
  assert.deepEqual(conclude(503, said, 3), { rejected: [], again: [0, 2] });
});

for (const [name, status, said, halveFrom] of [
  ["no answer", 0, null, 3],
  ["a page of somebody's login", 200, { ok: true }],
  ["an answer about another number of events", 200, { accepted: 2, rejected: [] }],
  ["an answer that names an event that was not sent", 503, { accepted: 2, not_stored: [3] }],
  ["an answer that names no index", 503, { accepted: 2, not_stored: [null] }],
  ["a failed function", 502, { message: "Internal Server Error" }, 3],
  ["an unknown key", 401, { error: { code: "unknown_key" } }],
  ["a key's limit", 429, { error: { code: "rate_limited" } }],
  ["too many requests", 429, { Reason: "CallerRateLimitExceeded" }],
  ["a server without room", 503, { error: { code: "overloaded" } }],
  ["a body that came too slowly", 408, { error: { code: "body_too_slow" } }],
  ["a body that ended early", 400, { error: { code: "body_broken" } }],
  ["a gateway's refusal", 403, { message: "Forbidden" }, 3],
  ["a text", 503, "Service Unavailable"],
]) {
  test(`${name} confirms nothing and drops nothing`, () => {
    const { rejected, again, halveFrom: from } = conclude(status, said, 3);
    assert.deepEqual({ rejected, again, from }, { rejected: [], again: all(3), from: halveFrom });
  });
}

test("a body that is too large is halved, and one event that is too large is dropped", () => {
  const said = { error: { code: "body_too_large" } };
  assert.deepEqual(conclude(413, said, 2), { rejected: [], again: [0, 1], halveFrom: 1 });
  assert.deepEqual(conclude(413, said, 1), { rejected: [{ index: 0, reason: "body_too_large" }], again: [] });
});

test("a refusal drops each event with its own reason, or else the body's", () => {
  const said = { accepted: 0, rejected: [{ index: 0, reason: "not_an_object" }], error: { code: "nothing_accepted" } };
  assert.deepEqual(conclude(400, said, 1).rejected, [{ index: 0, reason: "not_an_object" }]);
  assert.deepEqual(conclude(415, { error: { code: "unsupported_content_type" } }, 2).rejected, [
    { index: 0, reason: "unsupported_content_type" }, { index: 1, reason: "unsupported_content_type" },
  ]);
});

test("a body is 60 KiB and not a byte more", () => {
  // With its brackets, and a comma between.
  assert.equal(fitting([{ size: 61_438 }]), 1);
  assert.equal(fitting([{ size: 61_439 }]), 0);
  assert.equal(fitting([{ size: 30_000 }, { size: 31_437 }]), 2);
  assert.equal(fitting([{ size: 30_000 }, { size: 31_438 }]), 1);
  assert.equal(fitting([]), 0);
});

/** A client whose requests are answered in turn; `null` is no answer. What was sent is in `bodies`. */
function clientWith(t, answers, options) {
  const bodies = [];
  t.mock.timers.enable({ apis: ["setTimeout"] });
  t.mock.method(globalThis, "fetch", async (url, { body, headers }) => {
    bodies.push(JSON.parse(headers ? gunzipSync(await body.bytes()) : body));
    const answer = answers.shift();
    if (!answer) throw new TypeError("Failed to fetch");
    if (answer.text) return new Response(answer.text, answer);
    return Response.json(answer.said ?? { accepted: bodies.at(-1).length, rejected: [] }, answer);
  });
  return { client: new Playhead({ url: "http://h/events", ...options }), bodies };
}

test("exactly what is not stored is sent again, under its id, and not before Retry-After", async (t) => {
  const said = { accepted: 2, not_stored: [1], rejected: [] };
  const { client, bodies } = clientWith(t, [{ status: 503, headers: { "retry-after": "5" }, said }, { status: 200 }]);
  for (const n of all(3)) client.send({ n });
  assert.equal(await client.flush(), false);
  assert.equal(await client.flush(), false);
  t.mock.timers.tick(4_999);
  assert.equal(bodies.length, 1);
  t.mock.timers.tick(5_000);
  assert.equal(await client.flush(), true);
  assert.deepEqual(bodies[1], [bodies[0][1]]);
});

test("unanswered bodies are halved until the one event that has no answer stands behind the others", async (t) => {
  const { client, bodies } = clientWith(t, []);
  globalThis.fetch.mock.mockImplementation(async (url, { body }) => {
    bodies.push(JSON.parse(body));
    if (bodies.at(-1).some(({ n }) => n == 3)) throw new TypeError("Failed to fetch");
    return Response.json({ accepted: bodies.at(-1).length, rejected: [] });
  });
  for (const n of all(8)) client.send({ n });
  await client.flush();
  for (let tries = 0; tries < 30 && client.pending > 1; tries++) {
    t.mock.timers.tick(200_000);
    await client.flush();
  }
  assert.equal(client.pending, 1);
  assert.equal(client.dropped, 0);
});

/** Answers whatever is due until nothing is, at most so many times. */
async function retry(t, client, times) {
  await client.flush();
  for (let tries = 0; tries < times && client.pending; tries++) {
    t.mock.timers.tick(200_000);
    await client.flush();
  }
}

const ns = (bodies) => bodies.map((body) => body.map(({ n }) => n));

test("a body is halved from its third failure on", async (t) => {
  const { client, bodies } = clientWith(t, [null, null, null, { status: 200 }, { status: 200 }]);
  for (const n of all(4)) client.send({ n });
  await retry(t, client, 5);
  assert.deepEqual(ns(bodies), [all(4), all(4), all(4), [0, 1], [2, 3]]);
});

for (const [name, answer] of [
  ["an unknown key", { status: 401, said: { error: { code: "unknown_key" } } }],
  ["a key's limit", { status: 429, said: { error: { code: "rate_limited" } } }],
  ["a server without room", { status: 503, said: { error: { code: "overloaded" } } }],
]) {
  test(`${name} is no reason to halve a body, or to give an event up`, async (t) => {
    const { client, bodies } = clientWith(t, Array(20).fill(answer));
    for (const n of all(2)) client.send({ n });
    await retry(t, client, 19);
    assert.deepEqual(ns(bodies), Array(20).fill([0, 1]));
    assert.deepEqual([client.pending, client.dropped], [2, 0]);
  });
}

test("while the browser is offline no body is halved", async (t) => {
  navigator.onLine = false;
  t.after(() => navigator.onLine = true);
  const { client, bodies } = clientWith(t, []);
  for (const n of all(2)) client.send({ n });
  await retry(t, client, 9);
  assert.deepEqual(ns(bodies), Array(10).fill([0, 1]));
});

test("a single event stays before newer ones until its third failure", async (t) => {
  const { client, bodies } = clientWith(t, [null, null, null, { status: 200 }]);
  client.send({ n: 0 });
  await client.flush();
  client.send({ n: 1 });
  await retry(t, client, 9);
  assert.deepEqual(ns(bodies).slice(0, 2), [[0], [0, 1]]);
});

test("an event that is refused alone five times, by whoever stands before Playhead, is given up", async (t) => {
  const dropped = [];
  const onDrop = (reason, { n }) => dropped.push([reason, n]);
  const { client, bodies } = clientWith(t, Array(5).fill({ status: 403, text: "<h1>Forbidden</h1>" }), { onDrop });
  client.send({ n: 0 });
  await retry(t, client, 3);
  assert.deepEqual([client.pending, dropped], [1, []]);
  await retry(t, client, 1);
  assert.deepEqual([bodies.length, client.pending, dropped], [5, 0, [["refused", 0]]]);
});

for (const answer of [null, { status: 502, text: "Bad Gateway" }]) {
  test(`an event is never given up for want of an answer: ${answer?.status}`, async (t) => {
    const { client } = clientWith(t, Array(20).fill(answer));
    client.send({ n: 0 });
    await retry(t, client, 18);
    assert.deepEqual([client.pending, client.dropped], [1, 0]);
  });
}

test("a compressed body that is refused is sent once plain before anything is dropped", async (t) => {
  const refused = { status: 415, said: { error: { code: "unsupported_encoding" } } };
  const { client } = clientWith(t, [refused, { status: 200 }]);
  client.send({ text: "x".repeat(9_000) });
  await retry(t, client, 1);
  assert.deepEqual(globalThis.fetch.mock.calls.map(({ arguments: [, { headers }] }) => !!headers), [true, false]);
  assert.deepEqual([client.pending, client.dropped], [0, 0]);
});

test("an answer without sense confirms nothing and throws nothing", async (t) => {
  const { client, bodies } = clientWith(t, [{ status: 200, said: { accepted: 0, rejected: [null] } }, { status: 200 }]);
  client.send({ n: 0 });
  assert.equal(await client.flush(), false);
  await retry(t, client, 1);
  assert.deepEqual([ns(bodies), client.pending, client.dropped], [[[0], [0]], 0, 0]);
});

for (const [header, seconds] of [["600", 600], ["4294967295", 86_400], ["-5", 1], ["soon", 1]]) {
  test(`Retry-After of ${header} is waited for`, async (t) => {
    const { client, bodies } = clientWith(t, [{ status: 503, headers: { "retry-after": header }, said: {} }, { status: 200 }]);
    client.send({ n: 0 });
    await client.flush();
    t.mock.timers.tick(seconds * 1000 - 1);
    assert.equal(await client.flush(), false);
    t.mock.timers.tick(seconds * 500 + 1);
    assert.equal(await client.flush(), true);
    assert.equal(bodies.length, 2);
  });
}

test("where the page is not secure, ids are made without randomUUID", async (t) => {
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  t.after(() => delete crypto.randomUUID);
  const { client, bodies } = clientWith(t, [{ status: 200 }]);
  for (const n of all(20)) client.send({ n });
  await client.flush();
  assert.equal(new Set(bodies[0].map(({ id }) => id)).size, 20);
});

test("a queue takes events up to its bytes and not a byte more", async (t) => {
  const sizes = clientWith(t, [{ status: 200 }]);
  for (const n of all(2)) sizes.client.send({ n });
  await sizes.client.flush();
  const maxBytes = JSON.stringify(sizes.bodies[0]).length - "[,]".length;
  t.mock.restoreAll();
  for (const [bound, taken] of [[maxBytes, [true, true, false]], [maxBytes - 1, [true, false, false]]]) {
    const reasons = [];
    const client = new Playhead({ url: "http://h/events", maxBytes: bound, onDrop: (reason) => reasons.push(reason) });
    assert.deepEqual([0, 1, 2].map((n) => client.send({ n })), taken);
    assert.deepEqual(reasons, taken.filter((is) => !is).map(() => "queue_full"));
    t.mock.method(globalThis, "fetch", () => Promise.resolve(Response.json({ accepted: client.pending, rejected: [] })));
    await client.close();
  }
});

/** What pages kept, by the rest of their keys. */
function storage(t, kept) {
  const entries = Object.entries(kept).map(([key, value]) => [`playhead http://h/events ${key}`, value]);
  const storage = Object.fromEntries(entries);
  const methods = {
    getItem: { value: (key) => storage[key] ?? null },
    setItem: { value: (key, text) => { storage[key] = text; }, configurable: true },
    removeItem: { value: (key) => delete storage[key] },
  };
  Object.defineProperties(storage, methods);
  Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
  t.after(() => Object.defineProperty(globalThis, "localStorage", { value: undefined, configurable: true }));
  return storage;
}

const MINUTE = 60_000;
const kept = (keptAt, ...events) => JSON.stringify([keptAt, ...events]);

test("a page takes over what ended pages kept, each event once, and not what a live one keeps", async (t) => {
  const time = Date.now();
  const [one, two, three, four] = all(4).map((n) => ({ id: `e-${n}`, time }));
  const left = storage(t, {
    ended: kept(0, one, two), again: kept(0, two), crashed: kept(time - 10 * MINUTE, three), alive: kept(time - 9 * MINUTE, four),
    garbage: "{", "other": "7",
  });
  const { client, bodies } = clientWith(t, [{ status: 200 }]);
  await client.flush();
  assert.deepEqual(bodies, [[one, two, three]]);
  assert.deepEqual(Object.keys(left).map((key) => key.split(" ")[2]), ["alive", "garbage", "other"]);
  await client.close();
});

test("what is taken over is kept under the page's own key until it is stored", async (t) => {
  const event = { id: "e-1", time: Date.now() };
  const left = storage(t, { ended: kept(0, event) });
  const { client } = clientWith(t, [null, { status: 200 }]);
  assert.equal(await client.flush(), false);
  const [[key, text], ...more] = Object.entries(left);
  assert.ok(!key.endsWith("ended") && more.length == 0);
  assert.deepEqual(JSON.parse(text).slice(1), [event]);
  t.mock.timers.tick(10_000);
  assert.equal(await client.flush(), true);
  assert.deepEqual(Object.keys(left), []);
  await client.close();
});

test("what was kept for seven days is dropped by name", (t) => {
  const week = 7 * 24 * 60 * MINUTE;
  storage(t, { ended: kept(0, { id: "old", time: Date.now() - week }, { id: "new", time: Date.now() - week + MINUTE }) });
  const dropped = [];
  const { client } = clientWith(t, [], { onDrop: (reason, { id }) => dropped.push([reason, id]) });
  assert.deepEqual(dropped, [["expired", "old"]]);
  assert.equal(client.pending, 1);
});

const endPage = () => listeners.pagehide.at(-1)();
const listeners = {};

/** A page whose beacons are taken while they are no longer than `most` events. */
function pageWith(t, most) {
  const beacons = [];
  globalThis.addEventListener = (type, act) => (listeners[type] ??= []).push(act);
  navigator.sendBeacon = (url, body) => JSON.parse(body).length <= most && beacons.push(JSON.parse(body)) > 0;
  t.after(() => { delete globalThis.addEventListener; delete navigator.sendBeacon; });
  return beacons;
}

/** What the page kept: when, and how many. */
const keptBy = (left) => Object.values(left).map((text) => JSON.parse(text)).map(([keptAt, ...events]) => [keptAt, events.length]);

test("beacons are halved until they are taken, and what all were taken of is kept as that", (t) => {
  const left = storage(t, {});
  const beacons = pageWith(t, 2);
  const { client } = clientWith(t, []);
  for (const n of all(5)) client.send({ n });
  endPage();
  assert.deepEqual(ns(beacons).flat(), all(5));
  assert.deepEqual(keptBy(left), [[-1, 5]]);
  // It came after the beacons.
  client.send({ n: 5 });
  listeners.visibilitychange.at(-1)();
  assert.deepEqual(keptBy(left), [[0, 6]]);
});

for (const [name, most, hasFailed] of [["what beacons did not take", 0, false], ["what beacons took after a failure", 9, true]]) {
  test(`${name} is kept until it is known to be stored`, async (t) => {
    const left = storage(t, {});
    pageWith(t, most);
    const { client } = clientWith(t, []);
    client.send({ n: 0 });
    if (hasFailed) await client.flush();
    endPage();
    assert.deepEqual(keptBy(left), [[0, 1]]);
  });
}

test("a page without events to send sends no beacon", (t) => {
  const beacons = pageWith(t, 9);
  clientWith(t, []);
  endPage();
  assert.deepEqual(beacons, []);
});

test("what beacons took is sent again for ten minutes, and then it is no loss", async (t) => {
  const time = Date.now();
  const left = storage(t, {
    recent: kept(-1, { id: "e-1", time: time - 9 * MINUTE }), past: kept(-1, { id: "e-2", time: time - 10 * MINUTE }),
  });
  const { client, bodies } = clientWith(t, [{ status: 200 }]);
  await client.close();
  assert.deepEqual(bodies.flat().map(({ id }) => id), ["e-1"]);
  assert.deepEqual([Object.keys(left), client.dropped], [[], 0]);
});

test("a page whose kept events do not all fit is left for later, and loses none", async (t) => {
  const time = Date.now();
  const left = storage(t, {
    two: kept(0, { id: "e-0", time }, { id: "e-1", time }), three: kept(0, ...all(3).map((n) => ({ id: `f-${n}`, time }))),
  });
  const { client, bodies } = clientWith(t, [{ status: 200 }], { maxEvents: 4 });
  await client.close();
  assert.deepEqual(bodies.flat().map(({ id }) => id), ["e-0", "e-1"]);
  assert.deepEqual([Object.keys(left).map((key) => key.split(" ")[2]), client.dropped], [["three"], 0]);
});

test("what can not be kept whole under the page's own key stays under the other's", async (t) => {
  const left = storage(t, { ended: kept(0, ...all(2).map((n) => ({ id: `e-${n}`, time: Date.now() }))) });
  const write = left.setItem;
  Object.defineProperty(left, "setItem", { value: (key, text) => {
    if (JSON.parse(text).length > 2) throw new Error("QuotaExceededError");
    write(key, text);
  } });
  clientWith(t, []);
  assert.ok(Object.keys(left).some((key) => key.endsWith(" ended")));
});

test("kept events belong to the address without its query, and expired ones of any address are removed", async (t) => {
  const [time, week] = [Date.now(), 7 * 24 * 60 * MINUTE];
  const left = storage(t, { ended: kept(0, { id: "e-1", time }) });
  left["playhead http://elsewhere/events a"] = kept(0, { id: "e-2", time });
  left["playhead http://elsewhere/events b"] = kept(0, { id: "e-3", time: time - week });
  const { client, bodies } = clientWith(t, [{ status: 200 }], { url: "http://h/events?key=new" });
  await client.close();
  assert.deepEqual(bodies.flat().map(({ id }) => id), ["e-1"]);
  assert.deepEqual(Object.keys(left), ["playhead http://elsewhere/events a"]);
});

test("where storage is forbidden, events are sent all the same", async (t) => {
  Object.defineProperty(globalThis, "localStorage", { get() { throw new Error("SecurityError"); }, configurable: true });
  t.after(() => Object.defineProperty(globalThis, "localStorage", { value: undefined, configurable: true }));
  const { client, bodies } = clientWith(t, [{ status: 200 }]);
  client.send({ type: "play" });
  assert.equal(await client.close(), true);
  assert.equal(bodies[0][0].type, "play");
});
