"""``python -m infra.simulators``: a vendor to rehearse with, its faults, and nothing left of it in the end."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from infra.hosts.fireworks import Fireworks
from infra.providers.base import Account, NoCapacity
from infra.providers.runpod import RunPod
from infra.simulators.cloud import ADMIN
from tests.integration.providers.renting import eventually, order

pytestmark = pytest.mark.anyio


async def test_a_simulated_vendor_is_a_process_that_takes_its_machines_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.simulators", "runpod", "--boot-seconds", "0", "--fault", "no_capacity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout is not None
            said = "".join(simulator.stdout.readline() for _ in range(4))
            address = re.findall(r"simulated at ([^\s;]+)", said)[0]
            credentials = json.loads(re.findall(r"{.*}", said)[0])["credentials"]
            provider = RunPod(Account(address, credentials))
            offer = next(offer for offer in await provider.offers() if offer.available)
            with pytest.raises(NoCapacity):
                await provider.rent(offer, order())
            file = tmp_path / "pid"
            rented = await provider.rent(offer, order("sh", "-c", f"echo $$ > {file}; exec sleep 60"))

            async def written() -> int | None:
                return int(text) if file.is_file() and (text := file.read_text().strip()) else None

            process = await eventually(written)
            async with httpx.AsyncClient(base_url=address.removesuffix("/runpod")) as client:
                [receipt] = (await client.get(f"{ADMIN}/ledger")).json()
                assert (receipt["name"], receipt["gone"]) == (rented.name, None)
            simulator.send_signal(signal.SIGTERM)
            assert simulator.wait(20) == 0
            # Whoever reaps orphans here may take a while: a process that has ended is enough.
            assert not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE
        finally:
            simulator.kill()


async def test_a_simulated_platform_that_serves_adapters_is_told_of_in_the_same_way() -> None:
    command = [sys.executable, "-m", "infra.simulators", "fireworks", "--fault", "fails_loading"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout is not None
            said = "".join(simulator.stdout.readline() for _ in range(4))
            address = re.findall(r"simulated at ([^\s;]+)", said)[0]
            credentials = json.loads(re.findall(r"{.*}", said)[0])["credentials"]
            assert await Fireworks(Account(address, credentials)).names() == []
            simulator.send_signal(signal.SIGTERM)
            assert simulator.wait(20) == 0
        finally:
            simulator.kill()


def test_a_vendor_or_a_fault_that_is_not_known_is_refused() -> None:
    for words, expected in ((["mars"], "not simulated"), (["runpod", "--fault", "bogus"], "no fault")):
        command = [sys.executable, "-m", "infra.simulators", *words]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 2
        assert expected in refused.stderr
