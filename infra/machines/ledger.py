"""
The ledger: every rented machine is written down before it exists, and each change after it.

A receipt lies in the job's run directory, for the job's own process, and in Prefect as an artifact, whose versions tell
the machine's whole story, for everybody else. It is written here first, then there; who reads either finds a name that
a vendor can be asked for, whatever was killed meanwhile.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate

from infra.machines.reads import KEY, MACHINE
from infra.machines.receipts import FOLDER, RECEIPT, receipts_of
from infra.prefect_patience import insist
from infra.settings import Settings
from peft_studio.jobs import flow_run_id_of
from peft_studio.machine_names import job_of_machine
from peft_studio.machines import MachineReceipt
from peft_studio.run_dir import RunDir, write_once

Publish = Callable[[MachineReceipt], None]


def publish_in_prefect(receipt: MachineReceipt) -> None:
    """Make a receipt the newest version of its machine's artifact; returns when that is durable."""
    entry = ArtifactCreate(
        key=KEY + receipt.name,
        type=MACHINE,
        description=f"{receipt.provider} {receipt.resource_id}: {receipt.status}",
        data=receipt.model_dump(mode="json"),
        flow_run_id=flow_run_id_of(receipt.job_id),
    )
    with get_client(sync_client=True) as client:
        insist(lambda: client.create_artifact(entry))


class Ledger:
    """The receipts of all jobs; to be used from outside an event loop. ``publish`` shows each change to everybody."""

    def __init__(self, settings: Settings, publish: Publish = publish_in_prefect):
        self._settings = settings
        self._publish = publish

    def write(self, receipt: MachineReceipt) -> MachineReceipt:
        """Put a receipt on record; returns when it is durable in both places."""
        self._run(receipt.job_id).write(f"{FOLDER}/{receipt.name}/{RECEIPT}", receipt)
        self._publish(receipt)
        return receipt

    def change(self, receipt: MachineReceipt, **fields: Any) -> MachineReceipt:
        """Put a change on record and return the receipt as it is then."""
        return self.write(receipt.model_copy(update=fields))

    def of_job(self, job_id: str) -> Sequence[MachineReceipt]:
        """Return a job's machines, the first one first."""
        return receipts_of(self._run(job_id))

    def get(self, name: str) -> MachineReceipt | None:
        """Return a machine's receipt by its name."""
        job_id = job_of_machine(name)
        return self._run(job_id).read(f"{FOLDER}/{name}/{RECEIPT}", MachineReceipt) if job_id else None

    def _run(self, job_id: str) -> RunDir:
        return self._settings.run_dir(job_id)


def studio_id(settings: Settings) -> str:
    """Return the six hex digits that this studio's machines carry; made up once for a data directory."""
    path = settings.data_dir / "studio.id"
    if not path.is_file():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        write_once(path, lambda temporary: temporary.write_text(secrets.token_hex(3)))
    return path.read_text()
