"""Having a parcel sent by a process of its own, within bounds of time, and again where that may help."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from pydantic import ValidationError

from infra.credentials import CredentialStore
from infra.platforms.connections import base_url, not_connected
from infra.platforms.vendors import VENDORS
from infra.registries.__main__ import Answer
from infra.registries.parcel import Parcel
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable, StudioError
from peft_studio.registries import Registry

DELAYS = (2.0, 15.0, 60.0)
_MOST_SECONDS = 180.0  # for all but the bytes themselves
_LEAST_SPEED = 256 << 10  # bytes a second
_LONGEST_WAIT = 300  # that a registry may ask for
_HUB = "huggingface.co"
_ROOT = Path(__file__).parents[2]
_NOT_PASSED_ON = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_")


Run = Callable[[bytes, Mapping[str, str], float], Awaitable[bytes]]


async def in_own_process(order: bytes, environment: Mapping[str, str], seconds: float) -> bytes:
    """Have an order carried out; raises ``ResourceUnavailable`` where that takes too long."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.registries"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # libraries may write there what they were given
        env=dict(environment),
        cwd=_ROOT,
    )
    try:
        async with asyncio.timeout(seconds):
            return (await process.communicate(order))[0]
    except TimeoutError:
        raise ResourceUnavailable(f"It was not sent within {seconds:.0f} seconds.") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass(frozen=True)
class Sender:
    """
    Sends parcels.

    What passes (a registry that is away, slow or asked too often) is tried again after each of ``delays``, in seconds,
    or as much later as the registry asks; a refusal is not.
    """

    credentials: CredentialStore
    settings: Settings
    delays: Sequence[float] = DELAYS
    run: Run = in_own_process

    async def send(self, registry: Registry, parcel: Parcel) -> Answer:
        """Send a parcel; return what came of it."""
        answer = Answer()
        for delay in (*self.delays, None):
            try:
                answer = await self._send_once(registry, parcel)
            except StudioError as error:
                answer = Answer(error=error.message, passes=isinstance(error, ResourceUnavailable))
            if answer.pushed or not answer.passes or delay is None:
                break
            await asyncio.sleep(max(delay, min(answer.retry_after_seconds or 0, _LONGEST_WAIT)))
        return answer

    async def _send_once(self, registry: Registry, parcel: Parcel) -> Answer:
        vendor = VENDORS[registry.platform]
        kept = await self.credentials.get(vendor.name)  # at the moment of use: they may have changed meanwhile
        if kept is None:
            raise not_connected(vendor)
        values = kept.reveal()
        address = base_url(vendor, self.settings, values)
        order = {
            "registry": registry.model_dump(mode="json"),
            "parcel": parcel.model_dump(mode="json"),
            "values": values,
            "address": address,
        }
        seconds = _MOST_SECONDS + parcel.size_bytes / _LEAST_SPEED
        with TemporaryDirectory(prefix="peft-studio-push-") as home:
            said = await self.run(json.dumps(order).encode(), _environment(home, address), seconds)
        try:
            return Answer.model_validate_json(said.strip().rpartition(b"\n")[2])
        except ValidationError:
            return Answer(error="The process that was to send it ended without a word.", passes=True)


def _environment(home: str, address: str) -> dict[str, str]:
    """Leave nobody's own tokens, caches and settings to the libraries; Xet is spoken by the real Hub alone."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    is_real = urlsplit(address).hostname == _HUB
    return passed | {
        "HF_HOME": home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        **({} if is_real else {"HF_HUB_DISABLE_XET": "1"}),
    }
