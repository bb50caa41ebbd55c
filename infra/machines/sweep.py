"""Looks for machines that nobody works on any more, in the vendors' own lists and in the ledger."""

import asyncio
import fcntl
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterType
from prefect.client.schemas.objects import ArtifactCollection
from prefect.exceptions import ObjectNotFound

from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.machines.accounts import connected_providers, provider_of
from infra.machines.ledger import Ledger, studio_id
from infra.machines.reads import KEY, MACHINE
from infra.machines.release import Returns
from infra.prefect_patience import insist
from infra.providers.base import Rented
from infra.settings import Settings
from peft_studio.errors import StudioError
from peft_studio.events import now
from peft_studio.jobs import flow_run_id_of
from peft_studio.machine_names import is_of_studio, job_of_machine
from peft_studio.machines import MachineReceipt, MachineStatus

log = logging.getLogger(__name__)
_PAGE = 200
_LOST_ANSWERS = timedelta(hours=1)  # for so long a machine may show up whose creation was never confirmed
_RELEASING = timedelta(minutes=15)  # in which a job's own process has given its machine back
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


class Sweeper:
    """Looks through everything once; one at a time does."""

    def __init__(self, settings: Settings, credentials: CredentialStore | None = None):
        self._settings = settings
        self._credentials = credentials or CredentialsInPrefect()
        self._ledger = Ledger(settings)
        self._returns = Returns(settings, self._ledger, self._credentials)
        self._id = studio_id(settings)

    def sweep(self) -> SweepReport:
        """End what belongs to no live job, and close the receipts of what is gone."""
        report = SweepReport()
        with (self._settings.data_dir / "sweep.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for platform in asyncio.run(connected_providers(self._credentials)):
                try:
                    self._look_through(platform, report)
                except StudioError as error:
                    report.issues.append(f"{platform}: {error.message}")
            for receipt in self._open_receipts():
                self._close(receipt, report)
        return report

    def _look_through(self, platform: str, report: SweepReport) -> None:
        for machine in asyncio.run(self._machines(platform)):
            label = f"{machine.name or machine.id} at {platform}"
            if not is_of_studio(machine.name, self._id):
                report.strange.append(label)
            elif self._is_wanted(machine):
                report.kept.append(label)
            else:
                self._end(machine, platform)
                report.ended.append(label)

    def _is_wanted(self, machine: Rented) -> bool:
        receipt = self._ledger.get(machine.name)
        if receipt is None or receipt.status.is_over or not self._is_live(receipt.job_id):
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

    def _close(self, receipt: MachineReceipt, report: SweepReport) -> None:
        """See to a receipt that is not closed although its job has ended."""
        is_lost_answer = receipt.status is MachineStatus.INTENDED
        if self._is_live(receipt.job_id) or (is_lost_answer and now() - receipt.intended_at < _LOST_ANSWERS):
            return
        try:
            self._returns.release(receipt, _NO_JOB)
        except StudioError as error:
            report.issues.append(f"{receipt.name} at {receipt.provider}: {error.message}")

    def _open_receipts(self) -> Sequence[MachineReceipt]:
        """Return all receipts that are not closed, as this machine has them."""
        with get_client(sync_client=True) as client:
            names = _names(client)
        receipts = (self._ledger.get(name) for name in names if job_of_machine(name))
        return [receipt for receipt in receipts if receipt and not receipt.status.is_over]

    def _is_live(self, job_id: str) -> bool:
        """Whether a job may still use its machines: one that is paused gives them back by itself."""
        with get_client(sync_client=True) as client:
            try:
                state = insist(lambda: client.read_flow_run(flow_run_id_of(job_id))).state
            except ObjectNotFound:
                return False
        return state is None or not state.is_final() or state.is_crashed()  # it is about to be taken up again

    async def _machines(self, platform: str) -> list[Rented]:
        return await (await provider_of(platform, self._settings, self._credentials)).machines()

    async def _release(self, platform: str, machine_id: str) -> None:
        await (await provider_of(platform, self._settings, self._credentials)).release(machine_id)


def _names(client: SyncPrefectClient) -> list[str]:
    """Return the names of all machines that were ever written down."""
    kind, names = ArtifactCollectionFilter(type=ArtifactCollectionFilterType(any_=[MACHINE])), list[str]()

    def read() -> list[ArtifactCollection]:
        return client.read_latest_artifacts(artifact_filter=kind, limit=_PAGE, offset=len(names))

    while page := insist(read):
        names += [str(one.key).removeprefix(KEY) for one in page]
    return names
