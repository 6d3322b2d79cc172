// Beacons share 64 KiB.
const BODY_BYTES = 61440;
// Compression needs a preflight.
const GZIP_FROM = 8192;
const ANSWER_MS = 30e3;
const MAX_BACKOFF_MS = 120e3;
const MAX_RETRY_AFTER = 86400;
const KEPT_MS = 7 * 24 * 3600e3;
const RECENT_MS = 600e3;
const HALVE_FROM = 3;
const GIVE_UP_AFTER = 5;

// Only secure pages have randomUUID.
const newId = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
const bodyOf = (entries) => `[${entries.map(({ text }) => text)}]`;
const attempt = (act) => {
  try {
    return act();
  } catch {}
};
const entryOf = (event) => {
  const text = JSON.stringify(event);
  return { event, text, size: new TextEncoder().encode(text).length, failures: 0 };
};

/** How many fit into a body. */
export function fitting(entries) {
  let [count, size] = [0, 1];
  while (count < entries.length && (size += entries[count].size + 1) <= BODY_BYTES) count++;
  return count;
}

/** What an answer means for `count` events. */
export function conclude(status, said, count) {
  const { accepted, rejected = [], not_stored: again = [], error } = said ?? {};
  const all = [...Array(count).keys()];
  const named = [...again, ...rejected.map(({ index }) => index)];
  const isWhole = accepted + named.length === count && named.every((index) => index in all);
  if (isWhole && status == (again.length ? 503 : 200)) return { rejected, again };
  const code = [400, 404, 405, 413, 415].includes(status) && error?.code;
  const retry = { rejected: [], again: all };
  if ([200, 401, 408, 429, 503].includes(status) || code == "body_broken") return retry;
  if (!code || (status == 413 && count > 1)) return { ...retry, halveFrom: code ? 1 : HALVE_FROM };
  return { rejected: all.map((index) => ({ index, reason: rejected[index]?.reason ?? code })), again: [] };
}

export class Playhead {
  dropped = 0;
  #options;
  #key;
  #queue = [];
  #sequence = 0;
  #failures = 0;
  #retryAfter;
  #isPaused;
  #isClosed;
  #keptAt; // Below 0: beacons took all.
  #mostEvents = Infinity;
  #listening = new AbortController();
  #running;
  #timer;

  constructor(options) {
    this.#options = { sessionId: newId(), interval: 5e3, maxEvents: 10e3, maxBytes: 2 ** 20, ...options };
    const prefix = `playhead ${this.#options.url.split("?")[0]} `;
    this.#key = prefix + newId();
    const listen = (type, act) => globalThis.addEventListener?.(type, act, { signal: this.#listening.signal });
    listen("pagehide", () => this.#leave());
    listen("online", () => this.#retryAfter || this.#resume());
    // A phone may end hidden pages.
    listen("visibilitychange", () => {
      this.flush();
      this.#keep();
    });
    this.#adopt(prefix);
    this.flush();
  }

  get pending() {
    return this.#queue.length;
  }

  send(event) {
    const own = { id: newId(), session_id: this.#options.sessionId, time: Date.now(), sequence: this.#sequence++ };
    if (this.#isClosed) return this.#drop("closed", event);
    const entry = attempt(() => entryOf({ ...event, ...own }));
    if (!entry) return this.#drop("not_json", event);
    if (!fitting([entry])) return this.#drop("too_large", event);
    if (!this.#take([entry])) return this.#drop("queue_full", event);
    this.#keptAt &&= 0;
    if (fitting(this.#queue) < this.pending) this.flush();
    this.#wake(this.#options.interval);
    return true;
  }

  async flush() {
    while (this.pending && !this.#isPaused) await (this.#running ??= this.#run());
    return !this.pending;
  }

  async close() {
    this.#isClosed = true;
    return (await this.flush()) && !this.#listening.abort();
  }

  #take(entries) {
    const all = [...this.#queue, ...entries];
    const bytes = all.reduce((sum, { size }) => sum + size, 0);
    if (all.length > this.#options.maxEvents || bytes > this.#options.maxBytes) return false;
    this.#queue = all;
    return true;
  }

  #drop(reason, event) {
    this.dropped++;
    attempt(() => this.#options.onDrop?.(reason, event));
    return false;
  }

  #wake(milliseconds) {
    this.#timer ??= setTimeout(() => {
      this.#timer = this.#keptAt = undefined;
      this.#resume();
    }, milliseconds);
  }

  #resume() {
    this.#isPaused = false;
    this.flush();
  }

  async #run() {
    try {
      while (this.pending && !this.#isPaused) {
        const sent = this.#queue.slice(0, Math.min(fitting(this.#queue) || 1, this.#mostEvents));
        this.#settle(sent, await this.#post(bodyOf(sent), sent.length));
      }
      if (!this.pending) attempt(() => localStorage.removeItem(this.#key));
    } finally {
      this.#running = undefined;
    }
  }

  async #post(body, count) {
    // Retries need no preflight.
    const keepalive = !this.#failures;
    let headers;
    try {
      if (keepalive && body.length > GZIP_FROM && globalThis.CompressionStream) {
        body = await new Response(new Response(body).body.pipeThrough(new CompressionStream("gzip"))).blob();
        headers = { "content-encoding": "gzip" };
      }
      const signal = AbortSignal.timeout?.(ANSWER_MS);
      const answer = await fetch(this.#options.url, { method: "POST", body, headers, keepalive, signal });
      const { status } = answer;
      const said = (headers && [400, 415].includes(status)) || (await answer.json().catch(() => {}));
      const retryAfter = Math.min(MAX_RETRY_AFTER, parseInt(answer.headers.get("retry-after")) || 0);
      return { status, retryAfter, ...conclude(status, said, count) };
    } catch {
      return conclude(navigator.onLine ? 0 : 503, null, count);
    }
  }

  #settle(sent, { status, rejected, again, halveFrom, retryAfter }) {
    const failures = halveFrom && sent.length == 1 && ++sent[0].failures;
    if (failures >= GIVE_UP_AFTER && status < 500) rejected.push({ index: again.pop(), reason: "refused" });
    const kept = again.map((index) => sent[index]);
    const rest = this.#queue.slice(sent.length);
    this.#queue = failures >= HALVE_FROM ? [...rest, ...kept] : [...kept, ...rest];
    for (const { index, reason } of rejected) this.#drop(reason, sent[index].event);
    if (kept.length) {
      if (++this.#failures >= halveFrom) this.#mostEvents = (sent.length + 1) >> 1;
      return this.#pause(retryAfter);
    }
    this.#failures = 0;
    this.#mostEvents *= 2;
  }

  #pause(retryAfter = 0) {
    const backoff = Math.min(MAX_BACKOFF_MS, 500 * 2 ** this.#failures);
    this.#retryAfter = retryAfter;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isPaused = true;
    this.#wake(Math.max(retryAfter * 1000, backoff) * (1 + Math.random() / 2));
  }

  #leave() {
    if (!this.pending) return;
    this.#isPaused = true;
    this.#keptAt = this.#beacon(this.#queue) && navigator.onLine && !this.#failures ? -1 : 0;
    this.#keep();
    this.#wake(this.#options.interval);
  }

  #beacon(entries) {
    if (attempt(() => navigator.sendBeacon(this.#options.url, bodyOf(entries)))) return true;
    const half = entries.length >> 1;
    return half && this.#beacon(entries.slice(0, half)) && this.#beacon(entries.slice(half));
  }

  /** Whether all is kept. */
  #keep() {
    const all = [{ text: this.#keptAt ?? Date.now() }, ...this.#queue];
    let count = all.length;
    const write = () => localStorage.setItem(this.#key, bodyOf(all.slice(0, count))) ?? true;
    while (count > 1 && !attempt(write)) count >>= 1;
    return count == all.length;
  }

  #adopt(prefix) {
    const now = Date.now();
    const ids = new Set();
    const take = (key) => {
      const [keptAt, ...kept] = JSON.parse(localStorage.getItem(key));
      if (Math.abs(now - keptAt) < RECENT_MS) return;
      const isOld = ({ time }) => now - time >= (keptAt < 0 ? RECENT_MS : KEPT_MS);
      const entries = kept.filter((event) => !isOld(event) && ids.size < ids.add(event.id).size).map(entryOf);
      if (entries.length && !(key.startsWith(prefix) && this.#take(entries))) return;
      if (keptAt >= 0) for (const event of kept.filter(isOld)) this.#drop("expired", event);
      if (this.#keep()) localStorage.removeItem(key);
    };
    attempt(() => Object.keys(localStorage).forEach((key) => key.startsWith("playhead ") && attempt(() => take(key))));
  }
}
