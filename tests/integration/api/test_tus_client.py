"""A tus client that is not ours, against the real API on a real socket."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient

from api.app import create_app
from infra.settings import Settings
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory
from tests.loopback import on_loopback

ROWS = b"".join(b'{"text": "Hello %d"}\n' % number for number in range(20_000))
WRITES = {"Authorization": "Bearer writes"}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with on_loopback(create_app(JobsInMemory(), KeysInMemory(), Settings(data_dir=tmp_path))) as address:
        yield f"{address}/api/v1/datasets"


def test_a_stranger_uploads_in_pieces_and_goes_on_after_a_break(url: str) -> None:
    client = TusClient(f"{url}/uploads", headers=WRITES)
    first = client.uploader(file_stream=BytesIO(ROWS), chunk_size=100_000, metadata={"filename": "rows.jsonl"})
    first.upload(stop_at=200_000)
    second = client.uploader(file_stream=BytesIO(ROWS), url=first.url, chunk_size=150_000)
    assert second.offset == 200_000
    second.upload()
    (dataset,) = httpx.get(url, headers=WRITES).json()["datasets"]
    assert (dataset["rows"], dataset["size_bytes"]) == (20_000, len(ROWS))
