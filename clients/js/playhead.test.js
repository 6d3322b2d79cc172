import assert from "node:assert/strict";
import { test } from "node:test";

import { Playhead, conclude, fitting } from "./playhead.js";

const all = (count) => [...Array(count).keys()];

test("an answer of 200 confirms all but what it rejects", () => {
  const rejected = [{ index: 1, reason: "not_an_object" }];
  assert.deepEqual(conclude(200, { accepted: 2, rejected }, 3), { rejected, again: [] });
});

test("an answer of 503 names what is to be sent again", () => {
  const said = { accepted: 1, not_stored: [0, 2], rejected: [], error: { code: "not_stored" } };
  assert.deepEqual(conclude(503, said, 3), { rejected: [], again: [0, 2] });
});

for (const [name, status, said] of [
  ["no answer", 0, null],
  ["a page of somebody's login", 200, { ok: true }],
  ["an answer about another number of events", 200, { accepted: 2, rejected: [] }],
  ["a failed function", 502, { message: "Internal Server Error" }],
  ["too many requests", 429, { Reason: "CallerRateLimitExceeded" }],
  ["a server without room", 503, { error: { code: "overloaded" } }],
  ["a body that came too slowly", 408, { error: { code: "body_too_slow" } }],
  ["a body that ended early", 400, { error: { code: "body_broken" } }],
  ["a gateway's refusal", 403, { message: "Forbidden" }],
  ["a text", 503, "Service Unavailable"],
]) {
  test(`${name} confirms nothing and drops nothing`, () => {
    const { rejected, again, halveFrom } = conclude(status, said, 3);
    assert.deepEqual({ rejected, again, halveFrom }, { rejected: [], again: all(3), halveFrom: 3 });
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
  t.mock.method(globalThis, "fetch", async (url, { body }) => {
    bodies.push(JSON.parse(body));
    const answer = answers.shift();
    if (!answer) throw new TypeError("Failed to fetch");
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
    setItem: { value: (key, text) => { storage[key] = text; } },
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

test("where storage is forbidden, events are sent all the same", async (t) => {
  Object.defineProperty(globalThis, "localStorage", { get() { throw new Error("SecurityError"); }, configurable: true });
  t.after(() => Object.defineProperty(globalThis, "localStorage", { value: undefined, configurable: true }));
  const { client, bodies } = clientWith(t, [{ status: 200 }]);
  client.send({ type: "play" });
  assert.equal(await client.close(), true);
  assert.equal(bodies[0][0].type, "play");
});
