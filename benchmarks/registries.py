"""
What publishing reads: bytes of files read by the process that pushes, over the bytes of the adapter.

Counted by Linux (``rchar`` of ``/proc/self/io``: what ``read`` gave; sockets are received from otherwise). An adapter
is stored, as a job does, and then pushed to a simulated hub by ``huggingface_hub`` and to a real S3 server by ``s3fs``.
``ADAPTER_MB`` sets its size, by default 128.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from benchmarks.report import Figure
from infra.adapters.store import store
from infra.credentials import Credentials, CredentialsInMemory
from infra.registries import huggingface, s3
from infra.registries.__main__ import answer_to
from infra.registries.parcel import Parcel, pack
from infra.registries.sending import Sender
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.hub_uploads import UploadHub, create_upload_hub
from infra.simulators.loopback import served
from peft_studio.adapters import Adapter, AdapterMetadata
from peft_studio.config import Algorithm, TrainingConfig
from peft_studio.events import now
from peft_studio.registries import HuggingFaceRegistry, Registry, S3Registry

SIZE = int(os.environ.get("ADAPTER_MB", "128")) << 20
_MOST = 1.05  # one pass, and what libraries read besides
_IMPORTED = (huggingface, s3)  # before anything is counted
_SHORT = TrainingConfig(base_model="m", dataset_path="d")


def measure() -> list[Figure]:
    """Store an adapter and push it to both registries."""
    with tempfile.TemporaryDirectory() as folder, served(create_upload_hub(UploadHub())) as hub:
        settings = Settings(data_dir=Path(folder) / "data", platform_urls={"huggingface": hub})
        trained = Path(folder) / "trained"
        trained.mkdir()
        with (trained / "adapter_model.safetensors").open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
        before = _read()
        artifact = store(trained, "job_" + "0" * 32, _SHORT, settings)[1]
        stored = _read() - before
        adapter = Adapter(
            id="adapter_" + "0" * 32,
            job_id=None,
            name="a",
            base_model="m",
            algorithm=Algorithm.LORA,
            path=artifact.path,
            size_bytes=SIZE,
            created_at=now(),
            metadata=AdapterMetadata(rank=8, alpha=16, target_modules=["q_proj"]),
        )
        parcel = pack(adapter, artifact.hash.removeprefix("sha256:"))
        return [
            Figure("storing, hashed: bytes read over the adapter's", stored / SIZE, "times", at_most=_MOST),
            *asyncio.run(_pushed(parcel, settings)),
        ]


async def _pushed(parcel: Parcel, settings: Settings) -> list[Figure]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        address = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/models", method="PUT"))
        hub = HuggingFaceRegistry(kind="huggingface", repository="me/adapter")
        bucket = S3Registry(kind="s3", url="s3://models/adapters")
        keys = {"access_key_id": "k", "secret_access_key": "s", "endpoint_url": address}
        return [
            await _figure("the Hub", hub, {"api_key": GOOD}, parcel, settings),
            await _figure("S3", bucket, keys, parcel, settings),
        ]
    finally:
        server.stop()


async def _figure(
    name: str, registry: Registry, values: Mapping[str, str], parcel: Parcel, settings: Settings
) -> Figure:
    kept, read = CredentialsInMemory(), 0
    secrets = {field: SecretStr(value) for field, value in values.items()}
    await kept.put(Credentials(platform=registry.platform, verified_at=datetime.now(UTC), values=secrets))

    async def here(order: bytes, *_: Any) -> bytes:
        nonlocal read
        # A process of its own, as in a studio: the servers, which are in this one, read what they receive, too.
        command = [sys.executable, "-m", "benchmarks.registries"]
        environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
        done = await asyncio.to_thread(
            subprocess.run, command, input=order, capture_output=True, check=True, env=environment
        )
        answer, count = done.stdout.splitlines()[-2:]
        read = int(count)
        return answer

    answer = await Sender(kept, settings, (), here).send(registry, parcel)
    assert answer.pushed, answer.error
    return Figure(f"pushing to {name}: bytes read over the adapter's", read / SIZE, "times", at_most=_MOST)


def _read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def _push() -> None:
    order, before = sys.stdin.buffer.read(), _read()
    print(answer_to(order).decode(), _read() - before, sep="\n")


if __name__ == "__main__":
    _push()
