"""
What a large upload costs the API: its peak memory while gigabytes come in and are checked, and its speed.

The upload goes both ways, in one request and in pieces. ``UPLOAD_GB`` sets the size, by default 2.
"""

import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import httpx
import psutil

from benchmarks.report import Figure
from benchmarks.studio import Studio, running_studio

SIZE = int(float(os.environ.get("UPLOAD_GB", "2")) * 1e9)
PIECE = 256 << 20
ROWS_AT_ONCE = 1000
TUS = {"Tus-Resumable": "1.0.0"}


def measure() -> list[Figure]:
    """Upload rows that are all different, twice; look at the API's memory every few milliseconds meanwhile."""
    with running_studio(PEFT_STUDIO_REQUESTS_PER_MINUTE="1000000") as studio:
        headers = {"Authorization": f"Bearer {studio.key}"}
        with httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers, timeout=600) as client:
            _delete(client, _in_one_go(client, 20_000_000))  # imports are done, and buffers are there
            return [
                *_figures("in one request", studio, lambda: _in_one_go(client, SIZE), client),
                *_figures("in pieces of 256 MiB", studio, lambda: _in_pieces(client, SIZE), client),
            ]


def _figures(name: str, studio: Studio, upload: Callable[[], str], client: httpx.Client) -> list[Figure]:
    began = time.perf_counter()
    with _watched(studio, client) as seen:
        dataset_id = upload()
    seconds = time.perf_counter() - began
    size = client.get(f"/datasets/{dataset_id}").raise_for_status().json()["size_bytes"]
    _delete(client, dataset_id)
    title = f"{size / 1e9:.1f} GB {name}"
    return [
        Figure(f"{title}: growth of the API's memory, at its peak", seen.growth / 1e6, "MB", at_most=50),
        Figure(f"{title}: received, and every row checked", size / 1e6 / seconds, "MB/s"),
        Figure(f"{title}: slowest answer to another request meanwhile", 1000 * seen.slowest, "ms"),
    ]


class _Seen:
    growth = 0
    slowest = 0.0


@contextmanager
def _watched(studio: Studio, client: httpx.Client) -> Generator[_Seen]:
    """Sample the API's resident memory, and ask it something small over and over, until the block ends."""
    supervisor = psutil.Process(studio.process.pid)
    api = next(child for child in supervisor.children() if "api.app" in " ".join(child.cmdline()))
    seen, ended = _Seen(), threading.Event()
    before = api.memory_info().rss

    def sample() -> None:
        while not ended.wait(0.005):
            seen.growth = max(seen.growth, api.memory_info().rss - before)

    def ask() -> None:
        with httpx.Client(base_url=studio.url, timeout=60) as another:
            while not ended.wait(0.1):
                began = time.perf_counter()
                another.get("/healthz").raise_for_status()
                seen.slowest = max(seen.slowest, time.perf_counter() - began)

    threads = [threading.Thread(target=work) for work in (sample, ask)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _in_one_go(client: httpx.Client, size: int) -> str:
    answer = client.post("/datasets", params={"name": "large.jsonl"}, content=_rows(size))
    return answer.raise_for_status().json()["dataset_id"]


def _in_pieces(client: httpx.Client, size: int) -> str:
    length = sum(map(len, _rows(size)))
    metadata = f"filename {b64encode(b'large.jsonl').decode()}"
    begin = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata}
    where = client.post("/datasets/uploads", headers=begin).raise_for_status().headers["Location"]
    offset, answer = 0, None
    for piece in _pieces(size):
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        answer = client.patch(httpx.URL(client.base_url).join(where), content=piece, headers=headers)
        offset = int(answer.raise_for_status().headers["Upload-Offset"])
    assert answer is not None
    return answer.headers["Dataset-Id"]


def _rows(size: int) -> Iterator[bytes]:
    """JSON Lines of about so many bytes, some at a time, no two alike."""
    words = " ".join(f"word{place}" for place in range(80))
    made = number = 0
    while made < size:
        numbers = range(number, number + ROWS_AT_ONCE)
        block = "".join(
            f'{{"prompt": "Question {n}: {words}?", "completion": "{words} {n}"}}\n' for n in numbers
        ).encode()
        number += ROWS_AT_ONCE
        made += len(block)
        yield block


def _pieces(size: int) -> Iterator[bytes]:
    held = bytearray()
    for block in _rows(size):
        held += block
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _delete(client: httpx.Client, dataset_id: str) -> None:
    client.delete(f"/datasets/{dataset_id}").raise_for_status()
