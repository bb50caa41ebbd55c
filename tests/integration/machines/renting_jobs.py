"""A job on a rented machine without Prefect and torch: the studio's own layers, its API, and a vendor's simulator."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from pydantic import SecretStr

from api.app import create_app
from infra.credentials import Credentials, CredentialsInMemory
from infra.machines.accounts import provider_of
from infra.machines.ledger import Ledger
from infra.machines.meter import Affordable, Limits
from infra.machines.release import LOST_ANSWER_SECONDS
from infra.machines.remote import RemoteAttempt
from infra.machines.rental import Rental, Wanted
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.exchange import App
from infra.simulators.faults import Fault, FaultKind, Faults
from infra.simulators.lambda_cloud import create_lambda
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from peft_studio.errors import MachineLost
from peft_studio.events import LogLevel, now
from peft_studio.jobs import TrainingSummary, job_id_of
from peft_studio.machines import MachineReceipt
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir
from tests.integration.api.studio_in_memory import BudgetsInMemory, JobsInMemory, KeysInMemory, MachinesInMemory
from tests.integration.providers.exchanges import Exchange, recorded
from tests.integration.providers.vendors import Vendor
from tests.loopback import on_loopback
from tests.rented_jobs import DATA, LLAMA, config

APPLICATIONS: dict[str, Callable[[Cloud], App]] = {"lambda": partial(create_lambda, launch_seconds=0)}
SECRETS = ("api_key", "token", "private_key")
SECONDS = 600.0  # that a job may have a machine
BOOT_MINUTES = 0.3  # a busy machine takes its time to start Python


@dataclass
class Job:
    """A job that was run to its end, whichever that was."""

    vendor: Vendor
    cloud: Cloud
    run: RunDir
    exchanges: list[Exchange]
    receipts: list[MachineReceipt] = field(default_factory=list[MachineReceipt])
    published: list[MachineReceipt] = field(default_factory=list[MachineReceipt])
    said: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    error: Exception | None = None

    @property
    def summary(self) -> TrainingSummary | None:
        return self.run.read_summary()

    @property
    def cost(self) -> float:
        return sum(receipt.cost or 0.0 for receipt in self.receipts)

    @property
    def billed(self) -> float:
        return sum(receipt.cost for receipt in self.cloud.ledger())


@contextmanager
def studio(folder: Path) -> Generator[Settings]:
    """Serve the API that machines call, and yield the settings that lead them there."""
    given = Settings(data_dir=folder, boot_minutes=BOOT_MINUTES, stop_seconds=2)
    jobs = JobsInMemory()
    doubles = CredentialsInMemory(), BudgetsInMemory(), MachinesInMemory()
    app = create_app(jobs, KeysInMemory(), given, DeploymentsInMemory(), jobs, *doubles)
    with on_loopback(app) as url:
        yield given.model_copy(update={"public_url": url})


@dataclass
class Renting:
    """One job that rents at its vendor, the way the flow does."""

    job: Job
    settings: Settings
    credentials: CredentialsInMemory
    spot: bool = False
    lost_answer_seconds: float = LOST_ANSWER_SECONDS
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.settings, self.job.published.append)
        self._plan = Plan(
            config=config(provider=self.job.vendor.name),
            model=LLAMA,
            dataset=DATA,
            cache_key="k",
            total_steps=12,
            estimated_cost=None,
            estimated_duration_minutes=None,
        )
        self.job.run.write("config.json", self._plan.config)
        self.job.run.write("plan.json", self._plan)
        self._offers = asyncio.run(self._look_for_offers())

    def rental(self) -> Rental:
        """Return what a process of the job's flow begins with."""
        return Rental(
            self.job.run.job_id,
            self.settings,
            self.credentials,
            self.job.said.append,
            lambda: None,
            self.ledger,
            self.lost_answer_seconds,
        )

    def rent(self) -> MachineReceipt:
        """Have a machine: the one that is there, or another one."""
        rental = self.rental()
        return rental.current() or rental.rent(Wanted(self._plan, disk_gb=20), self._offers)

    def attempt(self, receipt: MachineReceipt) -> RemoteAttempt:
        """Follow a machine at work."""

        def say(message: str, _: LogLevel) -> None:
            self.job.said.append(message)

        return RemoteAttempt(receipt, self.job.run, Limits(), self.settings, self.credentials, say)

    def give_back(self) -> None:
        """Give back whatever there is."""
        for one in self.ledger.of_job(self.job.run.job_id):
            self.rental().returns.release(one, "The job had no more use for it.")

    async def _look_for_offers(self) -> list[Affordable]:
        provider = await provider_of(self.job.vendor.name, self.settings, self.credentials)
        offers = [one for one in await provider.offers() if one.available and one.spot == self.spot and one.gpu_count]
        return [Affordable(one, SECONDS) for one in sorted(offers, key=lambda one: one.hourly_rate)]


@contextmanager
def renting_at(
    vendor: Vendor, settings: Settings, fault: Fault | None = None, *, spot: bool = False
) -> Generator[Renting]:
    """A job at a vendor of its own, so that many can run at a time."""
    cloud, exchanges = vendor.cloud(Faults(*([fault] if fault else []))), list[Exchange]()
    run = settings.run_dir(job_id_of(UUID(int=uuid4().int)))
    job = Job(vendor, cloud, run, exchanges)
    application = APPLICATIONS.get(vendor.name, SIMULATED[vendor.name].application)
    with served(recorded(application(cloud), exchanges)) as root:
        address = f"{root}/{vendor.name}"
        account = vendor.credentials(address, GOOD)
        job.secrets = [account[name].strip().splitlines()[-2:][0] for name in SECRETS if name in account]
        values = {name: SecretStr(value) for name, value in account.items()}
        credentials = CredentialsInMemory()
        asyncio.run(credentials.put(Credentials(platform=vendor.name, verified_at=now(), values=values)))
        own = settings.model_copy(update={"platform_urls": {vendor.name: address}})
        yield Renting(job, own, credentials, spot)


def run_job(vendor: Vendor, fault: Fault | None, settings: Settings, *, spot: bool = False) -> Job:
    """
    Run one job at a vendor where something goes wrong: rent, follow, give back, once more.

    A key is revoked in the middle: when the machine has reported.
    """
    revoked = fault is not None and fault.kind is FaultKind.REVOKED_KEY
    with renting_at(vendor, settings, None if revoked else fault, spot=spot) as renting:
        try:
            _train(renting, revoked=revoked)
        except Exception as error:
            renting.job.error = error
        renting.job.receipts = list(renting.ledger.of_job(renting.job.run.job_id))
    return renting.job


def _train(renting: Renting, *, revoked: bool) -> None:
    while True:
        attempt = renting.attempt(renting.rent())
        if revoked:
            renting.job.cloud.faults.add(Fault(kind=FaultKind.REVOKED_KEY))
        try:
            while attempt.poll() is None:
                time.sleep(0.05)
            return
        except MachineLost as lost:
            renting.job.said.append(lost.message)
        finally:
            attempt.stop(5)
            renting.give_back()
