"""A rented machine whose studio is gone: it saves what it has, and ends itself when its time is up."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from infra.credentials import CredentialsInMemory
from infra.providers.base import Account, Order, Provider
from infra.providers.runpod import RunPod
from infra.providers.vast import Vast
from infra.rendezvous.door import CallbackDoor
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from peft_studio.ports import free_port
from peft_studio.remote import CLAIM_VARIABLE, LAUNCHER_VARIABLE
from peft_studio.remote.assignment import Assignment, Upload
from tests.integration.api.studio_in_memory import BudgetsInMemory, JobsInMemory, KeysInMemory, MachinesInMemory
from tests.loopback import on_loopback
from tests.rented_jobs import config

MACHINE = "pst-abcdef-" + "3" * 32 + "-1"
PROVIDERS = {"runpod": RunPod, "vast": Vast}
# Stands in for python -m: a trainer that works until it is told to stop.
TRAINER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("training", flush=True)
time.sleep(60)
"""


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    cloud = SIMULATED[request.param].cloud(boot_seconds=0)
    yield cloud
    cloud.close()


def ends(cloud: Cloud, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while cloud.existing() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not cloud.existing()


def studio(settings: Settings) -> object:
    jobs: Any = JobsInMemory()
    return create_app(
        jobs,
        KeysInMemory(),
        settings,
        DeploymentsInMemory(),
        jobs,
        CredentialsInMemory(),
        budgets=BudgetsInMemory(),
        machines=MachinesInMemory(),
    )


def work(door: CallbackDoor, deadline: float, stop: float) -> str:
    door.run.write("config.json", config())
    assignment = Assignment(
        job_id=door.run.job_id,
        machine=MACHINE,
        inputs=[],
        orders_url="",
        upload=Upload(url=""),
        deadline_seconds=deadline,
        checkpoint_seconds=60,
        silence_seconds=60,
        stop_seconds=stop,
        push_seconds=0.1,
    )
    return door.open(assignment, {}, 60)


async def rent(provider: Provider, claim: str, launcher: Path) -> None:
    offer = next(offer for offer in await provider.offers() if offer.available)
    launch = f"{sys.executable} {launcher}"
    assert provider.self_release is not None
    told = {CLAIM_VARIABLE: claim, LAUNCHER_VARIABLE: launch, **provider.self_release.as_environment()}
    await provider.rent(
        offer,
        Order(
            name=MACHINE,
            image="x",
            command=[sys.executable, "-m", "peft_studio.remote"],
            environment=told,
            disk_gb=10,
            max_seconds=3600,
        ),
    )


@pytest.mark.parametrize("cloud", ["runpod", "vast"], indirect=True)
@pytest.mark.timeout(90)
def test_a_machine_ends_itself_at_its_deadline_when_the_studio_is_gone(
    cloud: Cloud, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    vendor: str = request.node.callspec.params["cloud"]
    launcher = tmp_path / "launcher.py"
    launcher.write_text(TRAINER)
    settings = Settings(data_dir=tmp_path / "data", port=free_port())
    door = CallbackDoor(settings, MACHINE)
    with served(SIMULATED[vendor].application(cloud)) as address:
        provider = PROVIDERS[vendor](Account(f"{address}/{vendor}", {"api_key": GOOD}))
        with on_loopback(studio(settings), port=settings.port):
            asyncio.run(rent(provider, work(door, deadline=4, stop=2), launcher))
            deadline = time.monotonic() + 30
            while not door.is_claimed:
                assert time.monotonic() < deadline, "it never claimed its work"
                time.sleep(0.05)
            assert len(cloud.existing()) == 1
        claimed = time.monotonic()
        assert ends(cloud, 30)
        assert time.monotonic() - claimed > 3
