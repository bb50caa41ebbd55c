"""Looks for machines that nobody works on any more, in the vendors' own lists and in the ledger."""

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterType
from prefect.client.schemas.objects import ArtifactCollection, State
from prefect.exceptions import ObjectNotFound

from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.machines.accounts import connected_providers, provider_of
from infra.machines.ledger import Ledger, studio_id
from infra.machines.reads import KEY, MACHINE
from infra.machines.release import Returns
from infra.machines.settling import closing
from infra.prefect_patience import insist
from infra.providers.base import Rented
from infra.settings import Settings
from peft_studio.errors import StudioError
from peft_studio.events import now
from peft_studio.jobs import flow_run_id_of
from peft_studio.machine_names import is_of_studio, job_of_machine
from peft_studio.machines import MachineStatus

log = logging.getLogger(__name__)
_PAGE = 200
_LOST_ANSWERS = timedelta(hours=1)  # for so long a machine may show up whose creation was never confirmed
_RELEASING = timedelta(minutes=15)  # in which a job's own process has given its machine back
_TAKEN_UP = timedelta(hours=1)  # in which a job that has crashed is gone on with, where there is who does so
_NO_JOB = "No live job works on it."


@dataclass
class SweepReport:
    """What a sweep has found: machines and deployments by name, with their vendor."""

    ended: list[str] = field(default_factory=list[str])
    kept: list[str] = field(default_factory=list[str])
    strange: list[str] = field(default_factory=list[str])
    issues: list[str] = field(default_factory=list[str])

    @property
    def is_worth_telling(self) -> bool:
        """Whether there is more to say than that all is well."""
        return bool(self.ended or self.issues)

    def counts(self) -> dict[str, int]:
        """Say how many there were of each."""
        return {name: len(getattr(self, name)) for name in ("ended", "kept", "strange", "issues")}

    def as_markdown(self) -> str:
        """Lay it out for people."""
        titles = {
            "ended": "Ended, because nothing wanted it any more",
            "issues": "Needs a person",
            "strange": "Not this studio's, left alone",
            "kept": "At work",
        }
        parts = [(title, getattr(self, name)) for name, title in titles.items()]
        return "\n".join(f"## {title}\n\n" + "".join(f"- {one}\n" for one in found) for title, found in parts if found)


class JobsOfMachines(Protocol):
    """Where it is known which machines there ever were, and which jobs may still use theirs."""

    def machines(self) -> Sequence[str]:
        """Return the names of all machines that were ever written down."""
        ...

    def is_live(self, job_id: str) -> bool:
        """Tell whether a job may still use its machines."""
        ...


class Sweeper:
    """Looks through everything once; one at a time does. What goes wrong with one thing keeps no other from it."""

    def __init__(
        self,
        settings: Settings,
        credentials: CredentialStore | None = None,
        ledger: Ledger | None = None,
        jobs: JobsOfMachines | None = None,
    ):
        self._settings = settings
        self._credentials = credentials or CredentialsInPrefect()
        self._ledger = ledger or Ledger(settings)
        self._jobs = jobs or JobsInPrefect()
        self._returns = Returns(settings, self._ledger, self._credentials)
        self._id = studio_id(settings)

    def sweep(self) -> SweepReport:
        """End what belongs to no live job, and close the receipts of what is gone."""
        report = SweepReport()
        with closing(self._settings, patiently=True):
            for platform in asyncio.run(connected_providers(self._credentials)):
                with _telling(platform, report):
                    self._look_through(platform, report)
            for name in filter(job_of_machine, self._jobs.machines()):
                with _telling(name, report):
                    self._close(name, report)
        return report

    def _look_through(self, platform: str, report: SweepReport) -> None:
        for machine in asyncio.run(self._machines(platform)):
            label = f"{machine.name or machine.id} at {platform}"
            with _telling(label, report):
                if not is_of_studio(machine.name, self._id):
                    report.strange.append(label)
                elif self._is_wanted(machine):
                    report.kept.append(label)
                else:
                    self._end(machine, platform)
                    report.ended.append(label)

    def _is_wanted(self, machine: Rented) -> bool:
        receipt = self._ledger.get(machine.name)
        if receipt is None or receipt.status.is_over or not self._jobs.is_live(receipt.job_id):
            return False
        return receipt.released_at is None or now() - receipt.released_at < _RELEASING

    def _end(self, machine: Rented, platform: str) -> None:
        """End a machine that nobody works on; one without a receipt, or with one that is closed, by its id alone."""
        receipt = self._ledger.get(machine.name)
        if receipt is None:
            asyncio.run(self._release(platform, machine.id))
            return
        if receipt.status.is_over:  # its vendor's list had left it out, and it is there after all
            receipt = receipt.model_copy(update={"status": MachineStatus.RENTED, "cost": None, "gone_at": None})
        created = machine.created_at or receipt.intended_at
        found = {"machine_id": machine.id, "rented_at": receipt.rented_at or created}
        self._returns.release(receipt.model_copy(update=found), _NO_JOB)

    def _close(self, name: str, report: SweepReport) -> None:
        """See to a receipt that is not closed although its job has ended."""
        receipt = self._ledger.get(name)
        if receipt is None or receipt.status.is_over or self._jobs.is_live(receipt.job_id):
            return
        if receipt.status is MachineStatus.INTENDED and now() - receipt.intended_at < _LOST_ANSWERS:
            return
        with _telling(f"{name} at {receipt.provider}", report):
            self._returns.release(receipt, _NO_JOB)

    async def _machines(self, platform: str) -> list[Rented]:
        return await (await provider_of(platform, self._settings, self._credentials)).machines()

    async def _release(self, platform: str, machine_id: str) -> None:
        await (await provider_of(platform, self._settings, self._credentials)).release(machine_id)


class JobsInPrefect:
    """The jobs' flow runs and the ledger's artifacts, as Prefect's server has them."""

    def machines(self) -> Sequence[str]:
        """Return the names of all machines that were ever written down."""
        kind, names = ArtifactCollectionFilter(type=ArtifactCollectionFilterType(any_=[MACHINE])), list[str]()
        with get_client(sync_client=True) as client:

            def read() -> list[ArtifactCollection]:
                return client.read_latest_artifacts(artifact_filter=kind, limit=_PAGE, offset=len(names))

            while page := insist(read):
                names += [str(one.key).removeprefix(KEY) for one in page]
        return names

    def is_live(self, job_id: str) -> bool:
        """Tell whether a job may still use its machines."""
        with get_client(sync_client=True) as client:
            try:
                return may_go_on(insist(lambda: client.read_flow_run(flow_run_id_of(job_id))).state)
            except ObjectNotFound:
                return False


def may_go_on(state: State[Any] | None) -> bool:
    """
    Tell whether a flow run in this state may still use machines.

    One that has crashed is soon taken up again, or never; one that is paused has given its machine back, unless it was
    paused when it had no process to do so.
    """
    if state is None or not (state.is_crashed() or state.is_paused()):
        return state is None or not state.is_final()
    return now() - state.timestamp < (_TAKEN_UP if state.is_crashed() else _RELEASING)


@contextmanager
def _telling(label: str, report: SweepReport) -> Generator[None]:
    """Have an error end the block, and no more than that; the report has it."""
    try:
        yield
    except StudioError as error:
        report.issues.append(f"{label}: {error.message}")
    except Exception as error:
        log.exception("Looking after %s failed.", label)
        report.issues.append(f"{label}: {type(error).__name__}; see the log of the sweep")
