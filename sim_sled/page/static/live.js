// A running daemon: its stream of events, read by `fetch` so that a token can be sent, and resumed by the last id.

const AGAIN_MS = [250, 500, 1000, 2000, 4000];
const SILENT_MS = 40_000;

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export class Live {
  constructor(rack, changed) {
    this.rack = rack;
    this.changed = changed;
    this.state = "connecting";
    this.token = takeToken();
    this.lastId = "";
    this.offers = new Set();
    this.ended = null;
  }

  headers(more = {}) {
    return this.token ? { authorization: `Bearer ${this.token}`, ...more } : more;
  }

  setToken(token) {
    this.token = token;
    sessionStorage.setItem("sim-sled-token", token);
  }

  async run() {
    for (let failed = 0; ; ) {
      try {
        await this.ask();
        await this.stream(() => { failed = 0; });
      } catch (error) {
        if (error.status === 401) {
          this.become("locked");
          return;
        }
      }
      this.become("away");
      await new Promise((wake) => setTimeout(wake, AGAIN_MS[Math.min(failed++, AGAIN_MS.length - 1)]));
    }
  }

  // What this daemon can do: buttons it has no operation for are not shown.
  async ask() {
    const told = await this.get("/openapi.json");
    this.offers = new Set();
    for (const [path, methods] of Object.entries(told.paths)) {
      for (const method of Object.keys(methods)) this.offers.add(`${method.toUpperCase()} ${path}`);
    }
  }

  async stream(heard) {
    const stop = new AbortController();
    let silent;
    const listen = () => { clearTimeout(silent); silent = setTimeout(() => stop.abort(), SILENT_MS); };
    listen();
    try {
      const more = { accept: "text/event-stream" };
      if (this.lastId) more["last-event-id"] = this.lastId;
      const answer = await fetch("/page/feed", { headers: this.headers(more), signal: stop.signal, cache: "no-store" });
      if (!answer.ok) throw new Refused(answer.status, await refusalOf(answer));
      let rest = "";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        listen();
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.heard(part);
        heard();
        this.become("live");
      }
    } finally {
      clearTimeout(silent);
      stop.abort();
    }
  }

  heard(text) {
    const told = { event: "message", data: "" };
    for (const line of text.split("\n")) {
      const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
      if (field !== undefined) told[field] = value;
    }
    if (told.data === "") return;
    const data = JSON.parse(told.data);
    if (told.event === "whole") this.rack.clear(data);
    else if (told.event === "rows") this.rack.rows(data);
    else if (told.event === "frame") this.rack.frame(data);
    if (told.id !== undefined) this.lastId = told.id;
  }

  become(state) {
    this.state = state;
    this.rack.connect(state === "live");
    this.changed();
  }

  async get(path) {
    const answer = await fetch(path, { headers: this.headers({ accept: "application/json" }), cache: "no-store" });
    if (!answer.ok) throw new Refused(answer.status, await refusalOf(answer));
    return answer.json();
  }

  async post(path, body) {
    const more = body === undefined ? {} : { "content-type": "application/json" };
    const text = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(path, { method: "POST", headers: this.headers(more), body: text });
    if (!answer.ok) throw new Refused(answer.status, await refusalOf(answer));
    return answer.json().catch(() => ({}));
  }

  can(operation) {
    return this.offers.has(operation);
  }

  story(id) {
    return this.get(`/vmms/${encodeURIComponent(id)}/story`);
  }

  release(rule) {
    return this.post(`/release/${encodeURIComponent(rule)}`);
  }

  fire(name) {
    return this.post(`/fire/${encodeURIComponent(name)}`);
  }

  inject(id, body) {
    return this.post(`/vmms/${encodeURIComponent(id)}/inject`, body);
  }
}

async function refusalOf(answer) {
  try {
    return (await answer.json()).message ?? answer.statusText;
  } catch {
    return answer.statusText || `status ${answer.status}`;
  }
}

// A token comes behind the # (which no server is sent), or is typed; it lives as long as the tab.
function takeToken() {
  const [, given] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (given !== undefined) {
    sessionStorage.setItem("sim-sled-token", decodeURIComponent(given));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("sim-sled-token") ?? "";
}
