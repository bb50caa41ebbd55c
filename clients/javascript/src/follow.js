/**
 * Following a job: by WebSocket where there is one (browsers, Node 22), else by Server-Sent Events over fetch.
 *
 * Both say the same events with the same cursors, so that a lost connection goes on behind the last event, whichever way.
 */

import { errorOf, path, sleep } from "./requests.js";
import { errorWith, StudioError, Unreachable } from "./errors.js";

const RECONNECT_SECONDS = 60;
const PAUSE = 500;
const SILENCE = 60_000;
const SLOW_READER = 4408;
const FINAL = new Set(["completed", "failed", "cancelled"]);

/** Yield a job's events to its final status. */
export async function* follow(requests, jobId, { after, transport, signal } = {}) {
  const way = transport ?? (typeof WebSocket === "undefined" ? "sse" : "websocket");
  const connect = way === "sse" ? overSse : overWebSocket;
  let cursor = after;
  let deadline = Date.now() + RECONNECT_SECONDS * 1000;
  for (;;) {
    try {
      for await (const event of connect(requests, jobId, cursor, signal)) {
        deadline = Date.now() + RECONNECT_SECONDS * 1000;
        cursor = event.cursor ?? cursor;
        yield event;
        if (event.type === "status" && FINAL.has(event.status)) return;
      }
    } catch (error) {
      signal?.throwIfAborted();
      const away = error instanceof Unreachable || !(error instanceof StudioError) || error.status >= 500;
      if (!away || Date.now() > deadline) throw error;
    }
    signal?.throwIfAborted();
    if (Date.now() > deadline) throw new Unreachable(`The studio has been away for ${RECONNECT_SECONDS} s.`);
    await sleep(PAUSE);
  }
}

async function* overSse(requests, jobId, cursor, signal) {
  const stopped = new AbortController();
  const stop = () => stopped.abort();
  signal?.addEventListener("abort", stop);
  try {
    const headers = { Authorization: `Bearer ${requests.apiKey}`, Accept: "text/event-stream" };
    if (cursor) headers["Last-Event-ID"] = cursor;
    const address = `${requests.url}/api/v1${path("jobs", jobId, "events")}`;
    const response = await requests.fetch(address, { headers, signal: stopped.signal });
    if (!response.ok) throw await errorOf(response);
    for await (const message of messagesOf(lively(response.body, stop))) {
      const event = JSON.parse(message.data);
      yield { ...event, cursor: event.cursor ?? message.id };
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    stopped.abort();
  }
}

/** Pass on a stream's pieces; one that is silent for long is stopped, for the studio says something every 20 s. */
async function* lively(stream, stop) {
  let timer = setTimeout(stop, SILENCE);
  try {
    for await (const piece of piecesOf(stream)) {
      clearTimeout(timer);
      yield piece;
      timer = setTimeout(stop, SILENCE);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Read pieces of Server-Sent Events as `{id, data}`. */
export async function* messagesOf(pieces) {
  const decoder = new TextDecoder();
  let rest = "";
  let message = { id: undefined, data: [] };
  for await (const piece of pieces) {
    rest += decoder.decode(piece, { stream: true });
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (message.data.length) yield { id: message.id, data: message.data.join("\n") };
        message = { id: message.id, data: [] };
        continue;
      }
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "id") message.id = value;
      if (field === "data") message.data.push(value);
    }
  }
}

async function* piecesOf(stream) {
  const reader = stream.getReader(); // Safari cannot iterate over streams
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* overWebSocket(requests, jobId, cursor, signal) {
  // Browsers cannot set headers: a ticket, good for one socket, stands for the key.
  const { ticket } = await requests.json("POST", "/tickets");
  const address = new URL(`${requests.url.replace(/^http/, "ws")}/ws${path("jobs", jobId)}`);
  if (cursor) address.searchParams.set("after", cursor);
  const socket = new WebSocket(address, ["peft-studio", `ticket.${ticket}`]);
  const arrived = [];
  let wake = () => {};
  let closed = null;
  const listen = (name, take) => socket.addEventListener(name, (event) => (take(event), wake()));
  listen("message", (event) => arrived.push(JSON.parse(event.data)));
  listen("close", (event) => (closed = event));
  // Node 20 tells of a handshake that was cut off by this alone.
  listen("error", () => (closed ??= { code: 1006, reason: "" }));
  const stop = () => wake();
  signal?.addEventListener("abort", stop);
  try {
    for (;;) {
      while (arrived.length) yield arrived.shift();
      if (closed || signal?.aborted) break;
      await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    socket.close();
  }
  const refused = closed && closed.code >= 4400 && closed.code < 4500 && closed.code !== SLOW_READER;
  if (refused) {
    const [, code, message] = /^(\w+): (.*)$/s.exec(closed.reason) ?? [null, "", closed.reason];
    throw errorWith(code, message, {}, closed.code - 4000);
  }
}
