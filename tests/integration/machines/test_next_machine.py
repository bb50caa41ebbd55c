"""Which machine a job gets next: its own provider's again, unless it has lost one; spot, unless there is none."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.jobs.record import JobRecord
from infra.machines.base import Machine
from infra.machines.jobs import JobMachines
from infra.machines.ledger import Ledger
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from peft_studio.errors import ResourceUnavailable
from peft_studio.events import Log, now
from peft_studio.jobs import job_id_of
from peft_studio.machines import MachineReceipt
from peft_studio.plan import Plan
from tests.rented_jobs import DATA, LLAMA, config

BOTH = ("runpod", "vast")  # which has spot machines


@dataclass
class Job:
    """A job, the way its flow gets machines for it."""

    plan: Plan
    record: JobRecord
    machines: JobMachines
    credentials: CredentialsInMemory
    addresses: dict[str, str]  # of the vendors, as the studio has them

    def loses(self, machine: Machine) -> None:
        self.machines.note_loss(machine, "The machine was lost.")
        self.machines.release("The job had no more use for it.")

    @property
    def receipts(self) -> list[MachineReceipt]:
        return self.machines.receipts

    @property
    def said(self) -> str:
        return "".join(event.message for _, event in self.record.run.events() if isinstance(event, Log))


@contextmanager
def job(settings: Settings, **wishes: Any) -> Generator[Job]:
    clouds = {name: SIMULATED[name].cloud(boot_seconds=0.1) for name in BOTH}
    credentials = CredentialsInMemory()
    with (
        served(SIMULATED["runpod"].application(clouds["runpod"])) as runpod,
        served(SIMULATED["vast"].application(clouds["vast"])) as vast,
    ):
        for name in BOTH:
            key = {"api_key": SecretStr(GOOD)}
            asyncio.run(credentials.put(Credentials(platform=name, verified_at=now(), values=key)))
        urls = {"runpod": f"{runpod}/runpod", "vast": f"{vast}/vast"}
        own = settings.model_copy(update={"platform_urls": urls})
        record = JobRecord(job_id_of(uuid4()), own)
        terms: dict[str, Any] = {"cache_key": "k", "total_steps": 12}
        terms |= {"estimated_cost": None, "estimated_duration_minutes": None}
        plan = Plan(config=config(**wishes), model=LLAMA, dataset=DATA, **terms)
        record.run.write("config.json", plan.config)
        record.run.write("plan.json", plan)
        ledger = Ledger(own, lambda receipt: None)
        started = Job(plan, record, JobMachines(record, own, credentials, ledger), credentials, urls)
        try:
            yield started
        finally:
            started.machines.release("The test is over.")
            for cloud in clouds.values():
                cloud.close()


def test_a_job_that_goes_on_keeps_to_its_own_wishes_until_it_has_lost_a_machine(settings: Settings) -> None:
    with job(settings, provider="runpod", resource_id="gpu-h100-80gb") as one:
        first = one.machines.provision(one.plan)
        one.machines.release("It is paused.")
        second = one.machines.provision(one.plan)
        assert (
            (first.provider, first.resource_id) == (second.provider, second.resource_id) == ("runpod", "gpu-h100-80gb")
        )
        one.loses(second)
        third = one.machines.provision(one.plan)
        assert third.hourly_rate < second.hourly_rate  # whatever costs least to finish on, wherever that is
        assert [receipt.lost for receipt in one.receipts] == [False, True, False]
        assert one.receipts[1].reason == "The machine was lost."


def test_a_job_whose_provider_answers_nothing_of_use_goes_on_at_another_one_but_does_not_begin_there(
    settings: Settings,
) -> None:
    with job(settings, provider="vast") as one:
        first = one.machines.provision(one.plan)
        one.loses(first)
        one.addresses["vast"] = one.addresses["runpod"]  # which knows nothing of what it is asked for
        second = one.machines.provision(one.plan)
        assert (first.provider, second.provider) == ("vast", "runpod")
    with job(settings, provider="vast") as another:
        another.addresses["vast"] = another.addresses["runpod"]
        with pytest.raises(ResourceUnavailable):
            another.machines.provision(another.plan)
        assert another.receipts == []


def test_where_no_larger_gpu_is_to_be_had_the_lack_of_memory_is_what_is_said(settings: Settings) -> None:
    with job(settings, provider="runpod") as one:
        with pytest.raises(ResourceUnavailable, match="ran out of memory, and no GPU with more than 1000 GB"):
            one.machines.provision(one.plan, beyond_gb=1000)
        assert one.receipts == []


def test_a_job_that_has_lost_its_spot_machine_pays_the_usual_price_within_its_limit(settings: Settings) -> None:
    with job(settings, provider="vast", spot=True, max_cost=20) as one:
        first = one.machines.provision(one.plan)
        one.loses(first)
        asyncio.run(one.credentials.delete("vast"))  # no spot machine is to be had any more
        second = one.machines.provision(one.plan)
        assert [(receipt.provider, receipt.spot) for receipt in one.receipts] == [("vast", True), ("runpod", False)]
        assert second.provider == "runpod" and "the usual price, as no machine is to be had at a spot price" in one.said


def test_without_a_limit_a_job_waits_for_a_spot_price_and_says_what_would_help(settings: Settings) -> None:
    with job(settings, provider="vast", spot=True) as one:
        one.loses(one.machines.provision(one.plan))
        asyncio.run(one.credentials.delete("vast"))
        with pytest.raises(ResourceUnavailable, match="none is to be had at a spot price") as raised:
            one.machines.provision(one.plan)
        assert "with max_cost" in str(raised.value.details["issue"])
        assert len(one.receipts) == 1
