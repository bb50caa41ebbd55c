/**
 * Requests: sent, sent again where that helps, and their errors thrown as what they are.
 *
 * Everything is repeated that is not the caller's fault: lost connections, 5xx, and 429 after the time that the studio
 * asks for. Every POST carries a key by which the studio knows a repetition: what was sent twice is done once.
 */

import { errorWith, StudioError, Unreachable } from "./errors.js";

const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 60_000;

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Join parts of an address, whatever characters they have. */
export const path = (...parts) => parts.map((part) => `/${encodeURIComponent(part)}`).join("");

export class Requests {
  constructor({ url, apiKey, timeout, repeats, fetch }) {
    this.url = url.replace(/\/+$/, "");
    this.apiKey = apiKey;
    this.timeout = timeout;
    this.repeats = repeats;
    this.fetch = fetch;
  }

  /** Send a request and return its JSON. */
  async json(method, where, options = {}) {
    const response = await this.send(method, where, options);
    return await response.json();
  }

  /** Send a request, again if need be, and return the response; throws the `StudioError` that it may be. */
  async send(method, where, { query, json, body, headers = {}, repeats = this.repeats, timeout = this.timeout } = {}) {
    const address = new URL(`${this.url}/api/v1${where}`);
    for (const [name, value] of Object.entries(query ?? {})) {
      if (value !== undefined && value !== null) address.searchParams.set(name, value);
    }
    const all = { Authorization: `Bearer ${this.apiKey}`, ...headers };
    if (method === "POST" && !all["Idempotency-Key"]) all["Idempotency-Key"] = newKey();
    if (json !== undefined) all["Content-Type"] = "application/json";
    const content = json === undefined ? body : JSON.stringify(json);
    const streamed = typeof ReadableStream !== "undefined" && content instanceof ReadableStream;
    const request = { method, headers: all, body: content, ...(streamed ? { duplex: "half" } : {}) };

    let pause = FIRST_PAUSE;
    for (let left = streamed ? 0 : repeats; ; left -= 1) {
      const outcome = await this.#attempt(address, request, timeout);
      const wait = waitAfter(outcome);
      if (wait === null || left <= 0 || wait > LONGEST_PAUSE) {
        if (outcome instanceof Error) throw outcome;
        if (!outcome.ok) throw await errorOf(outcome);
        return outcome;
      }
      if (!(outcome instanceof Error)) await outcome.body?.cancel();
      await sleep(wait || pause * (0.75 + Math.random() / 2));
      pause *= 2;
    }
  }

  async #attempt(address, request, timeout) {
    try {
      return await this.fetch(address, { ...request, signal: AbortSignal.timeout(timeout) });
    } catch (error) {
      const reason = error.name === "TimeoutError" ? "it did not answer in time" : (error.cause?.message ?? error.message);
      return new Unreachable(`The studio at ${this.url} cannot be reached: ${reason}.`, { cause: error });
    }
  }
}

/** Make up a key. Node 18 has no global crypto, and browsers have no randomUUID on pages without TLS. */
function newKey() {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, at) => (bytes[at] = Math.random() * 256));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return how many milliseconds to wait before the next attempt (0: as one sees fit), or null where there is none. */
function waitAfter(outcome) {
  if (outcome instanceof Error) return 0;
  if (outcome.status < 500 && outcome.status !== 429) return null;
  const seconds = Number(outcome.headers.get("Retry-After") ?? 0);
  return Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : 0;
}

/** Turn the API's error body back into the error it came from. */
export async function errorOf(response) {
  const text = await response.text().catch(() => "");
  try {
    const { code, message, details } = JSON.parse(text).error;
    return errorWith(code, message, details, response.status);
  } catch {
    const told = `The server answered ${response.status} ${response.statusText}.`;
    const kind = [502, 503, 504].includes(response.status) ? Unreachable : StudioError;
    return new kind(told, { status: response.status });
  }
}
