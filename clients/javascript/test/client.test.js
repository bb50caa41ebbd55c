/** The client against the real API on loopback. Start with `node --test`; the API is started with the project's Python. */

import assert from "node:assert/strict";
import { createServer, connect as connectTo } from "node:net";
import { after, before, test } from "node:test";

import * as studios from "../src/index.js";
import { messagesOf } from "../src/follow.js";
import { startStudio } from "../testing/studio.js";

const { Client, Conflict, InvalidConfig, JobNotFound, NotFound, StudioError, Unreachable } = studios;
const CONFIG = { base_model: "org/model", dataset_path: "/data/rows.jsonl" };
const TRANSPORTS = typeof WebSocket === "undefined" ? ["sse"] : ["sse", "websocket"];

let studio;
let client;

before(async () => {
  studio = await startStudio();
  client = new Client(studio);
});
after(() => studio.stop());

const all = async (events) => {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
};

/** A cable to the studio that is cut after so many bytes, for each connection in turn: [there, back]. */
async function withCable(cuts, use) {
  const { hostname, port } = new URL(studio.url);
  let connections = 0;
  const sockets = new Set();
  const cable = createServer((near) => {
    const [there, back] = cuts[connections] ?? [Infinity, Infinity];
    connections += 1;
    const far = connectTo(port, hostname);
    const ends = [near, far];
    const cut = () => ends.forEach((end) => end.destroy());
    for (const end of ends) {
      sockets.add(end);
      end.on("error", cut);
      end.on("close", cut);
    }
    const carry = (from, to, limit) =>
      from.on("data", (piece) => {
        if (piece.length > limit) return to.write(piece.subarray(0, limit), cut);
        limit -= piece.length;
        to.write(piece);
      });
    carry(near, far, there);
    carry(far, near, back);
  });
  await new Promise((resolve) => cable.listen(0, "127.0.0.1", resolve));
  try {
    await use(new Client({ url: `http://127.0.0.1:${cable.address().port}`, apiKey: "writes" }));
    return connections;
  } finally {
    cable.close();
    sockets.forEach((socket) => socket.destroy());
  }
}

test("a job is submitted, found and cancelled", async () => {
  const created = await client.createJob({ ...CONFIG, project_name: "größer" });
  assert.equal(created.status, "pending");
  const job = await client.getJob(created.job_id);
  assert.equal(job.config.project_name, "größer");
  const page = await client.listJobs({ status: "pending", limit: 100 });
  assert.ok(page.jobs.some((one) => one.job_id === job.job_id));
  assert.equal((await client.cancelJob(job.job_id)).status, "cancelled");
  await assert.rejects(client.cancelJob(job.job_id), Conflict);
});

test("a refusal is thrown as the error of its code, with its field", async () => {
  await assert.rejects(client.getJob("job_0"), JobNotFound);
  await assert.rejects(client.getJob("../../etc/passwd"), NotFound);
  await assert.rejects(client.createJob({ ...CONFIG, rank: 0 }), (error) => {
    assert.ok(error instanceof InvalidConfig && error instanceof StudioError);
    assert.deepEqual([error.name, error.code, error.status, error.details.field], ["InvalidConfig", "INVALID_CONFIG", 400, "rank"]);
    return true;
  });
  const stranger = new Client({ ...studio, apiKey: "unknown" });
  await assert.rejects(stranger.listJobs(), studios.AuthenticationFailed);
  const reader = new Client({ ...studio, apiKey: "reads" });
  await assert.rejects(reader.createJob(CONFIG), studios.PermissionDenied);
});

test("a studio that is away is named", async () => {
  const nobody = new Client({ url: "http://127.0.0.1:9", apiKey: "writes", repeats: 1 });
  await assert.rejects(nobody.listJobs(), (error) => {
    assert.ok(error instanceof Unreachable);
    assert.match(error.message, /127\.0\.0\.1:9 cannot be reached/);
    return true;
  });
});

test("lost connections are made again, and a job is created once", async () => {
  const count = async () => (await client.listJobs({ limit: 1 })).total;
  const before = await count();
  const connections = await withCable([[0, Infinity], [Infinity, 0], [Infinity, 20]], (far) => far.createJob(CONFIG));
  assert.equal(connections, 4);
  assert.equal(await count(), before + 1);
});

test("a key of one's own makes another call the same", async () => {
  const first = await client.createJob(CONFIG, { idempotencyKey: "mine" });
  const second = await client.createJob(CONFIG, { idempotencyKey: "mine" });
  assert.equal(first.job_id, second.job_id);
});

for (const transport of TRANSPORTS) {
  test(`events are followed to the final status or from a cursor: ${transport}`, async () => {
    const events = await all(client.follow(studio.eventful, { transport }));
    const steps = events.filter((event) => event.type === "metrics").map((event) => event.metrics.step);
    assert.deepEqual(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.equal(events.at(-2).message, "Zoë says: done, 完成");
    assert.equal(events.at(-1).status, "completed");
    assert.deepEqual(await all(client.follow(studio.eventful, { transport, after: events[5].cursor })), events.slice(6));
  });

  test(`a follower goes on where it was cut off: ${transport}`, async () => {
    const cuts = [[Infinity, 900], [Infinity, 10], [0, 0], [Infinity, 1200]];
    let events;
    const connections = await withCable(cuts, async (far) => {
      events = await all(far.follow(studio.eventful, { transport }));
    });
    assert.deepEqual(events, await all(client.follow(studio.eventful)));
    assert.ok(connections > 3);
  });

  test(`a follower is told why it is refused: ${transport}`, async () => {
    await assert.rejects(all(client.follow("job_0", { transport })), JobNotFound);
    const stranger = new Client({ ...studio, apiKey: "unknown" });
    await assert.rejects(all(stranger.follow(studio.eventful, { transport })), studios.AuthenticationFailed);
  });

  test(`a follower may stop: ${transport}`, async () => {
    const stop = new AbortController();
    const events = client.follow(studio.pending, { transport, signal: stop.signal });
    setTimeout(() => stop.abort(), 300);
    await assert.rejects(all(events), { name: "AbortError" });
    for await (const event of client.follow(studio.eventful, { transport })) {
      assert.equal(event.type, "status");
      break;
    }
  });
}

test("server-sent events are read however they are cut", async () => {
  const text = "retry: 10\n\n: nothing\nid: 1\nevent: log\ndata: {\"a\":\ndata: \"é\"}\r\n\r\nid:2\ndata:x\n\n";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 7, bytes.length]) {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
    assert.deepEqual(await all(messagesOf(pieces)), [{ id: "1", data: '{"a":\n"é"}' }, { id: "2", data: "x" }]);
  }
});

const ROWS = Array.from({ length: 20_000 }, (_, n) => JSON.stringify({ prompt: `What is ${n}?`, completion: `It is ${n}.` }));
const rows = () => new Blob([ROWS.join("\n")]);

test("a data set is uploaded in pieces, with progress", async () => {
  const told = [];
  const onProgress = (sent, total) => told.push([sent, total]);
  const dataset = await client.uploadDataset(rows(), { name: "größe.jsonl", onProgress, pieceBytes: 500_000 });
  assert.deepEqual([dataset.rows, dataset.name], [20_000, "größe.jsonl"]);
  const size = rows().size;
  assert.deepEqual(told.at(-1), [size, size]);
  assert.equal(told.length, Math.ceil(size / 500_000));
  assert.deepEqual(await client.getDataset(dataset.dataset_id), dataset);
  assert.ok((await client.deleteDataset(dataset.dataset_id)).success);
});

test("an upload that is cut off goes on", async () => {
  let dataset;
  await withCable([[400_000, Infinity], [300_000, Infinity], [Infinity, 200]], async (far) => {
    dataset = await far.uploadDataset(rows(), { name: "rows.jsonl" });
  });
  assert.equal(dataset.rows, 20_000);
});

test("a stream is uploaded in one go, and what is no data set is refused with its row", async () => {
  const dataset = await client.uploadDataset(rows().stream(), { name: "rows.jsonl" });
  assert.equal(dataset.rows, 20_000);
  const bad = new Blob(['{"text": "fine"}\n{"words": "not"}\n']);
  await assert.rejects(client.uploadDataset(bad, { name: "rows.jsonl" }), (error) => error.details.row === 2);
});

test("an adapter is uploaded and comes back as it was", async () => {
  const weights = new Blob([Buffer.from(studio.adapter, "base64")]);
  const { adapter_id } = await client.uploadAdapter(weights, { base_model: "org/model", name: "mine" });
  assert.equal((await client.getAdapter(adapter_id)).name, "mine");
  const back = await client.downloadAdapter(adapter_id, { file: "adapter_model.safetensors" });
  assert.deepEqual(Buffer.from(await back.arrayBuffer()).toString("base64"), studio.adapter);
  const zip = await (await client.downloadAdapter(adapter_id)).arrayBuffer();
  assert.equal(Buffer.from(zip).subarray(0, 2).toString(), "PK");
  assert.ok((await client.deleteAdapter(adapter_id)).success);
});
