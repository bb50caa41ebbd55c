/** Uploads of data sets: a Blob goes in pieces, by the tus protocol, and goes on where it was cut off. */

import { Conflict, Unreachable } from "./errors.js";
import { path, sleep } from "./requests.js";

const TUS = { "Tus-Resumable": "1.0.0" };
const PIECE = 32 * 1024 * 1024;
const CHECKING = 600_000; // the last piece is answered when every row has been read
const SETBACKS = 6;

/** Upload a Blob or File; returns the data set. */
export async function uploadBlob(requests, blob, { name, onProgress, uploadId, pieceBytes = PIECE } = {}) {
  const filename = name ?? blob.name ?? "";
  const upload = uploadId ?? (await begin(requests, filename, blob.size));
  const where = path("datasets", "uploads", upload);
  let setbacks = 0;
  try {
    let state = await look(requests, where);
    while (!state.datasetId) {
      try {
        const piece = blob.slice(state.offset, state.offset + pieceBytes);
        state = await send(requests, where, piece, state.offset);
        onProgress?.(state.offset, blob.size);
      } catch (error) {
        // A conflict: the studio has not yet noticed that we were cut off.
        if (!(error instanceof Unreachable || error instanceof Conflict) || ++setbacks > SETBACKS) throw error;
        await sleep(300 * setbacks);
        state = await look(requests, where);
      }
    }
    return await requests.json("GET", path("datasets", state.datasetId));
  } catch (error) {
    if (error instanceof Unreachable || error instanceof Conflict) error.details.upload_id = upload;
    throw error;
  }
}

/** Upload a stream of unknown length, in one go; returns the data set. */
export async function uploadStream(requests, stream, { name } = {}) {
  const headers = { "Content-Type": "application/octet-stream" };
  return await requests.json("POST", "/datasets", { query: { name }, body: stream, headers, timeout: CHECKING });
}

async function begin(requests, filename, size) {
  const encoded = btoa(String.fromCharCode(...new TextEncoder().encode(filename)));
  const headers = { ...TUS, "Upload-Length": String(size), "Upload-Metadata": `filename ${encoded}` };
  return (await requests.json("POST", "/datasets/uploads", { headers })).upload_id;
}

async function look(requests, where) {
  return stateOf(await requests.send("HEAD", where, { headers: TUS, timeout: CHECKING }));
}

async function send(requests, where, piece, offset) {
  const headers = { ...TUS, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
  // Not to be repeated blindly: what has arrived of it is to be found out first.
  return stateOf(await requests.send("PATCH", where, { headers, body: piece, repeats: 0, timeout: CHECKING }));
}

function stateOf(response) {
  return { offset: Number(response.headers.get("Upload-Offset")), datasetId: response.headers.get("Dataset-Id") };
}
