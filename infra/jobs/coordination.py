"""
Flow runs that start jobs and watch them: sweeps over hyperparameters, and schedules.

They train nothing. Each has a folder below the data directory with its heartbeat, and with what it is asked for.
"""

import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.runtime import flow_run as current_flow_run

from infra.budget_reads import ReadFromServer
from infra.budgets import BudgetsInPrefect
from infra.credentials import CredentialsInPrefect
from infra.jobs.heartbeats import HEARTBEAT, last_beat
from infra.jobs.submission import JobSubmission
from infra.machines.offers import offer_book
from infra.settings import Settings

_CANCEL = "cancel"
_KEPT_SECONDS = 7 * 24 * 3600.0


class Coordinator:
    """One such flow run, as files know it."""

    def __init__(self, run_id: UUID, settings: Settings):
        self.folder: Path = settings.data_dir / "coordinating" / run_id.hex

    @classmethod
    def current(cls, settings: Settings) -> "Coordinator":
        """Return the one that this code runs in."""
        return cls(UUID(str(current_flow_run.id)), settings)

    def ask_to_cancel(self) -> None:
        """Ask it to cancel its jobs and to end; the request outlives whatever happens to its process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _CANCEL).touch()

    def is_asked_to_cancel(self) -> bool:
        """Tell whether it is to cancel its jobs and to end."""
        return (self.folder / _CANCEL).exists()


def forget_old(settings: Settings) -> None:
    """Remove the folders of flow runs that ended long ago; not at their end, when they may yet be taken for dead."""
    for folder in (settings.data_dir / "coordinating").glob("*"):
        is_old = time.time() - last_beat(folder) > _KEPT_SECONDS
        if is_old and (folder / HEARTBEAT).exists() and not (folder / _CANCEL).exists():
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def submitting(client: PrefectClient, settings: Settings) -> AsyncGenerator[JobSubmission]:
    """Submit jobs from within a flow run, which sees no database: budgets are read through Prefect's server."""
    offers = offer_book(settings, CredentialsInPrefect())

    async def prefect() -> PrefectClient:
        return client

    try:
        yield JobSubmission(settings, offers, BudgetsInPrefect(ReadFromServer(client), settings), prefect)
    finally:
        await offers.close()
