"""Flow runs that make something of adapters, by the ids that users know them by: started, found, stopped, forgotten."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from infra.adapters.runs import AdapterTask, Runs
from infra.jobs.flow_run_jobs import STATES, status_of
from infra.jobs.locks import changing
from infra.jobs.reads import Run
from peft_studio.errors import Conflict, InvalidConfig, NotFound
from peft_studio.jobs import JobStatus

_CANCEL_SECONDS = 10.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Kind:
    """One kind of them: what it is called, and how its ids and those of flow runs belong together."""

    name: str
    id_of: Callable[[UUID], str]
    flow_run_id_of: Callable[[str], UUID]  # raises NotFound


class RunsById:
    """The runs of one kind."""

    def __init__(self, kind: Kind, runs: Runs):
        self._kind, self._runs = kind, runs

    async def start(self, task: AdapterTask, key: str | None, is_asked_for: Callable[[Run], bool]) -> Run:
        """Start a run, or return the one that was started with a key; raises ``Conflict`` where that is another."""
        run = await self._runs.create(task, key)
        if not is_asked_for(run):
            raise Conflict(
                f"This Idempotency-Key was used before, for another {self._kind.name}.",
                field="Idempotency-Key",
                **{f"{self._kind.name}_id": self._kind.id_of(run.id)},
            )
        return run

    async def get(self, one_id: str) -> Run:
        """Return one as it is now; raises ``NotFound``."""
        if (run := await self._runs.get(self._kind.flow_run_id_of(one_id))) is None:
            raise NotFound(f"There is no {self._kind.name} {one_id!r}.", **{f"{self._kind.name}_id": one_id})
        return run

    async def page(
        self, adapter_id: str | None, status: JobStatus | None, limit: int, cursor: str | None
    ) -> tuple[Sequence[Run], str | None]:
        """Return some, newest first, and the cursor of the page behind them; None where there is none."""
        try:
            after = self._kind.flow_run_id_of(cursor) if cursor is not None else None
        except NotFound:
            raise InvalidConfig(
                "This is not a cursor of this list.", field="cursor", issue="Send one you received"
            ) from None
        found = await self._runs.page(adapter_id, STATES[status] if status else None, limit + 1, after)
        page = found[:limit]
        return page, self._kind.id_of(page[-1].id) if len(found) > limit else None

    async def cancel(self, one_id: str) -> Run:
        """Stop one; return it when it has ended, or as it is after ten seconds."""
        async with changing(one_id):
            run = await self.get(one_id)
            if (status := status_of(run)).is_final:
                raise self._conflict(f"The {self._kind.name} has already ended: it is {status}.", one_id, status)
            await self._runs.cancel(run)
        deadline = asyncio.get_running_loop().time() + _CANCEL_SECONDS
        while not status_of(run := await self.get(one_id)).is_final:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return run

    @asynccontextmanager
    async def ended(self, one_id: str) -> AsyncGenerator[Run]:
        """Hold one that has ended, for whoever forgets it; raises ``Conflict`` while it is at work."""
        async with changing(one_id):
            run = await self.get(one_id)
            if not (status := status_of(run)).is_final:
                raise self._conflict(f"The {self._kind.name} is {status}; cancel it first.", one_id, status)
            yield run

    async def forget(self, run: Run) -> None:
        """Delete a run's record."""
        await self._runs.delete(run.id)

    def _conflict(self, message: str, one_id: str, status: JobStatus) -> Conflict:
        return Conflict(message, status=status, **{f"{self._kind.name}_id": one_id})
