"""A studio that rents: connected to simulated vendors, whose machines share its warm server so that they start fast."""

import asyncio
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.studio import Studio, running_studio
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.exchange import App
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from infra.warm import SOCKET_VARIABLE
from peft_studio.machines import MachineReceipt
from peft_studio.remote import LAUNCHER_VARIABLE

BOOT_SECONDS = 0.2


@dataclass
class RentingStudio:
    """The studio, and the clouds it rents from."""

    studio: Studio
    clouds: Mapping[str, Cloud]
    addresses: Mapping[str, str]
    api: httpx.Client
    asked: Sequence[tuple[float, str]]  # when vendors were asked so far, and at which addresses
    delays: dict[str, float]  # seconds that a vendor's answers take longer, from now on

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Ask the API for something with a body."""
        return self.api.post(path, json=body)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as the API has it."""
        return self.api.get(f"/jobs/{job_id}").raise_for_status().json()

    def receipts(self, job_id: str) -> list[MachineReceipt]:
        """Return a job's receipts."""
        return [MachineReceipt.model_validate(one) for one in self.job(job_id)["machines"]]

    def existing(self) -> list[str]:
        """Names of the machines that some vendor still has."""
        return [machine.name for cloud in self.clouds.values() for machine in cloud.existing()]

    def billed(self, job_id: str) -> float:
        """What the vendors' own ledgers say that a job's machines have cost."""
        part = job_id.removeprefix("job_")
        return sum(one.cost for cloud in self.clouds.values() for one in cloud.ledger() if part in one.name)


@contextmanager
def renting_studio(
    data_dir: Path, *vendors: str, keys: Mapping[str, str] | None = None, **environment: str
) -> Generator[RentingStudio]:
    """Start simulators, which take the usual key unless they are given another, and a studio; connect it to them."""
    shared = {
        SOCKET_VARIABLE: str(data_dir / "tmp" / "warm.sock"),
        LAUNCHER_VARIABLE: f"{sys.executable} -m infra.warm run",
    }
    before = {name: os.environ.get(name) for name in shared}
    os.environ |= shared
    try:
        with ExitStack() as stack:
            keys, asked, delays = dict.fromkeys(vendors, GOOD) | dict(keys or {}), list[tuple[float, str]](), {}
            clouds = {name: SIMULATED[name].cloud(boot_seconds=BOOT_SECONDS, key=keys[name]) for name in vendors}
            for cloud in clouds.values():
                stack.callback(cloud.close)
            addresses = {
                name: stack.enter_context(served(_observed(name, SIMULATED[name].application(cloud), asked, delays)))
                for name, cloud in clouds.items()
            }
            urls = ",".join(f'"{name}":"{address}/{name}"' for name, address in addresses.items())
            settings = {
                "PEFT_STUDIO_PLATFORM_URLS": "{" + urls + "}",
                "PEFT_STUDIO_REQUESTS_PER_MINUTE": "100000",
                "PEFT_STUDIO_STOP_SECONDS": "1",
                **environment,
            }
            studio = stack.enter_context(running_studio(data_dir, **settings))
            headers = {"Authorization": f"Bearer {studio.key}"}
            api = stack.enter_context(httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60))
            addresses = {name: f"{address}/{name}" for name, address in addresses.items()}
            renting = RentingStudio(studio, clouds, addresses, api, asked, delays)
            for name in vendors:
                usual = SIMULATED[name].credentials(addresses[name].rpartition("/")[0])
                given = {field: value.replace(GOOD, keys[name]) for field, value in usual.items()}
                renting.post(f"/platforms/{name}/connect", credentials=given).raise_for_status()
            yield renting
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _observed(name: str, app: App, asked: list[tuple[float, str]], delays: Mapping[str, float]) -> App:
    """Have an application note when and where it is asked, and take its time where it is to."""

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        asked.append((time.monotonic(), f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"))

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(delays.get(name, 0.0))
            await send(message)

        await app(scope, receive, answer)

    return observed
