// See README.md. SPDX-License-Identifier: Apache-2.0

// Keepalive and beacons share 64 KiB.
const BODY_BYTES = 61_440;
// It costs a preflight.
const GZIP_FROM = 8192;
const ANSWER_MS = 30_000;
const LONGEST_PAUSE_MS = 120_000;
const KEPT_MS = 7 * 24 * 3_600_000;
const ALIVE_MS = 600_000; // After it kept.
// Failures in a row: a single event may be the cause.
const HALVE_FROM = 3;

// Only secure pages have randomUUID.
const newId = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
const bodyOf = (entries) => `[${entries.map(({ text }) => text)}]`;

/** Undefined if `act` throws. */
const attempt = (act) => {
  try {
    return act();
  } catch {}
};

/** How many fit into a body. */
export function fitting(entries) {
  let [count, size] = [0, 1];
  while (count < entries.length && (size += entries[count].size + 1) <= BODY_BYTES) count++;
  return count;
}

/** What an answer says of `count` events; nothing if it is not Playhead's. */
export function conclude(status, said, count) {
  const { accepted, rejected = [], not_stored: again = [], error } = said ?? {};
  const isWhole = accepted + rejected.length + again.length === count;
  if (isWhole && status == (again.length ? 503 : 200)) return { rejected, again };
  const all = [...Array(count).keys()];
  const isRefusal = [400, 404, 405, 413, 415].includes(status) && error?.code && error.code != "body_broken";
  if (!isRefusal) return { rejected: [], again: all, halveFrom: HALVE_FROM };
  if (status == 413 && count > 1) return { rejected: [], again: all, halveFrom: 1 };
  return { rejected: all.map((index) => ({ index, reason: rejected[index]?.reason ?? error.code })), again: [] };
}

export class Playhead {
  dropped = 0;
  #options;
  #key;
  #queue = [];
  #flight = [];
  #outlives = false; // The flight, the page.
  #bytes = 0;
  #sequence = 0;
  #failures = 0;
  #isPaused = false;
  #isClosed = false;
  #isLeaving = false;
  #mostEvents = Infinity;
  #listening = new AbortController();
  #running;
  #timer;

  constructor(options) {
    this.#options = { sessionId: newId(), interval: 5_000, maxEvents: 10_000, maxBytes: 2 ** 20, ...options };
    const prefix = `playhead ${this.#options.url} `;
    this.#key = prefix + newId();
    const listen = (type, act) => globalThis.addEventListener?.(type, act, { signal: this.#listening.signal });
    listen("pagehide", () => this.#leave());
    listen("online", () => {
      this.#isPaused = false;
      this.flush();
    });
    // The last that a phone says.
    listen("visibilitychange", () => {
      this.flush();
      this.#keep();
    });
    this.#adopt(prefix);
    this.flush();
  }

  get pending() {
    return this.#flight.length + this.#queue.length;
  }

  send(event) {
    const { sessionId: session_id } = this.#options;
    const own = { id: newId(), session_id, time: Date.now(), sequence: this.#sequence++ };
    if (this.#isClosed) return this.#drop("closed", event);
    if (!this.#add(event, own)) return false;
    if (this.#bytes > BODY_BYTES && !this.#running) this.flush();
    this.#wake(this.#options.interval);
    return true;
  }

  async flush() {
    while (this.pending && !this.#isPaused) await (this.#running ??= this.#run());
    return !this.pending;
  }

  async close() {
    this.#isClosed = true;
    const isDone = await this.flush();
    if (isDone) this.#listening.abort();
    return isDone;
  }

  #add(event, own) {
    const text = attempt(() => JSON.stringify({ ...event, ...own }));
    if (!text) return this.#drop("not_json", event);
    const size = new TextEncoder().encode(text).length;
    if (!fitting([{ size }])) return this.#drop("too_large", event);
    const isFull = this.pending >= this.#options.maxEvents || this.#bytes + size > this.#options.maxBytes;
    if (isFull) return this.#drop("queue_full", event);
    this.#bytes += size;
    return this.#queue.push({ text, size });
  }

  #drop(reason, event) {
    this.dropped++;
    attempt(() => this.#options.onDrop?.(reason, event));
    return false;
  }

  #wake(milliseconds) {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#isPaused = this.#isLeaving = false;
      this.flush();
    }, milliseconds);
  }

  async #run() {
    while (this.#queue.length && !this.#isPaused) {
      this.#flight = this.#queue.splice(0, Math.min(fitting(this.#queue), this.#mostEvents));
      const count = this.#flight.length;
      const answer = await this.#post(bodyOf(this.#flight), count);
      if (this.#settle(answer)) this.#pause(answer, count);
      else {
        this.#failures = 0;
        this.#mostEvents *= 2;
      }
    }
    if (!this.pending) attempt(() => localStorage.removeItem(this.#key));
    this.#running = undefined;
  }

  async #post(body, count) {
    // Retries are plain: a preflight, or other bodies kept alive, may have failed the first.
    const keepalive = !this.#failures;
    const headers = {};
    try {
      if (keepalive && body.length > GZIP_FROM && globalThis.CompressionStream) {
        body = await new Response(new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"))).blob();
        headers["content-encoding"] = "gzip";
      }
      this.#outlives = keepalive;
      const signal = AbortSignal.timeout?.(ANSWER_MS);
      const answer = await fetch(this.#options.url, { method: "POST", body, headers, keepalive, signal });
      const retryAfter = answer.headers.get("retry-after") | 0;
      return { retryAfter, ...conclude(answer.status, await answer.json(), count) };
    } catch {
      return conclude(0, null, count);
    } finally {
      this.#outlives = false;
    }
  }

  /** How many are to be sent again. */
  #settle({ rejected, again, halveFrom }) {
    const sent = this.#flight;
    const kept = sent.filter((_, index) => again.includes(index));
    this.#flight = [];
    // One that fails alone lets the others pass.
    this.#queue = halveFrom && sent.length == 1 ? [...this.#queue, ...kept] : [...kept, ...this.#queue];
    this.#bytes = this.#queue.reduce((sum, { size }) => sum + size, 0);
    for (const { index, reason } of rejected) this.#drop(reason, attempt(() => JSON.parse(sent[index].text)));
    return kept.length;
  }

  #pause({ halveFrom, retryAfter = 0 }, count) {
    if (++this.#failures >= halveFrom) this.#mostEvents = (count + 1) >> 1;
    const wait = Math.min(LONGEST_PAUSE_MS, retryAfter * 1000 + 500 * 2 ** this.#failures);
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isPaused = true;
    this.#wake(wait * (1 + Math.random() / 2));
  }

  #leave() {
    this.#isPaused = this.#isLeaving = true;
    this.#keep();
    this.#wake(this.#options.interval);
    const rest = [...(this.#outlives ? [] : this.#flight), ...this.#queue];
    while (rest.length) {
      const body = bodyOf(rest.splice(0, fitting(rest)));
      if (!attempt(() => navigator.sendBeacon(this.#options.url, body))) return;
    }
  }

  #keep() {
    const all = [{ text: this.#isLeaving ? 0 : Date.now() }, ...this.#flight, ...this.#queue];
    for (let count = all.length; count > 1; count >>= 1) {
      if (attempt(() => localStorage.setItem(this.#key, bodyOf(all.slice(0, count))) ?? true)) return;
    }
  }

  /** Takes over what ended pages kept. */
  #adopt(prefix) {
    const events = new Map();
    const keys = attempt(() => Object.keys(localStorage).filter((key) => key.startsWith(prefix))) ?? [];
    const taken = keys.filter((key) => attempt(() => {
      const [keptAt, ...kept] = JSON.parse(localStorage.getItem(key));
      if (Math.abs(Date.now() - keptAt) < ALIVE_MS) return false;
      for (const event of kept) events.set(event.id, event);
      return true;
    }));
    for (const event of events.values()) {
      if (Date.now() - event.time < KEPT_MS) this.#add(event);
      else this.#drop("expired", event);
    }
    this.#keep();
    for (const key of taken) localStorage.removeItem(key);
  }
}
