"""Runs that begin anew where their process is gone, a few times; those that were being cancelled are cancelled."""

import asyncio
import logging
from datetime import UTC, datetime

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Cancelled, Failed

from infra.flow_runs import CANCELLED
from infra.jobs.recovery import TAKEN_UP, Recovery, times_taken_up

log = logging.getLogger(__name__)


class AnewRecovery(Recovery):
    """Looks after runs that ought to be at work; each begins anew, and finds by itself what is of use to it."""

    what = ""

    def _drop(self, run: FlowRun) -> None:
        """Remove what a dead process has left half made."""

    async def _clear_away(self, client: PrefectClient, run: FlowRun, failure: str | None) -> None:
        """See to what a run has left elsewhere that comes to its end: cancelled, or for a reason failed."""

    async def _take_up(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        self._silent_since.pop(run.id, None)
        deaths = 1 + times_taken_up(await client.read_flow_run_states(run.id))
        if (await client.read_flow_run(run.id)).state_type is not run.state_type:
            return  # somebody decided otherwise meanwhile
        await asyncio.to_thread(self._drop, run)
        if state.is_cancelling():
            await self._clear_away(client, run, None)
            following = Cancelled(message=CANCELLED)
        elif deaths > self._settings.max_recoveries:
            failure = f"The {self.what}'s process died {deaths} times: {state.message or 'without a word'}"
            await self._clear_away(client, run, failure)
            following = Failed(message=failure)
        else:
            following = AwaitingRetry(message=TAKEN_UP, scheduled_time=datetime.now(UTC))
        await client.set_flow_run_state(run.id, following, force=True)
        log.warning("The %s %s was %s and is %s (death %d)", self.what, run.id, state.name, following.name, deaths)
