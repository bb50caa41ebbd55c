"""Deployments whose flow run's process is gone are gone on with, a few times; what was cancelled is taken off."""

import logging
from datetime import UTC, datetime
from pathlib import Path

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Cancelled, Failed

from infra.credentials import CredentialsInPrefect
from infra.deploying.bringing import Bringing
from infra.deploying.hosting import Hosting
from infra.flow_runs import CANCELLED
from infra.jobs.recovery import TAKEN_UP, Recovery, times_taken_up
from infra.serving.records import DeploymentsInPrefect
from infra.settings import DEPLOY_DEPLOYMENT
from peft_studio.errors import ResourceUnavailable

log = logging.getLogger(__name__)


class DeployRecovery(Recovery):
    """Looks after the runs of deployments: what they have placed is found again by its name."""

    flows = (DEPLOY_DEPLOYMENT.partition("/")[0],)

    def _folder(self, run: FlowRun) -> Path:
        return self._settings.deploying / _deployment_of(run)

    async def _take_up(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        try:
            await self._go_on(client, run, state)
        except ResourceUnavailable as error:  # it is looked at again
            log.warning("Deployment %s cannot be looked after: %s", run.name, error.message)

    async def _go_on(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        self._silent_since.pop(run.id, None)
        deaths = 1 + times_taken_up(await client.read_flow_run_states(run.id))
        if (await client.read_flow_run(run.id)).state_type is not run.state_type:
            return  # somebody decided otherwise meanwhile
        hosting = Hosting(CredentialsInPrefect(), self._settings)
        left = Bringing(_deployment_of(run), DeploymentsInPrefect(client), hosting, self._settings)
        if state.is_cancelling():
            following = Cancelled(message=CANCELLED)
            await left.withdraw("Its flow run was cancelled.")
        elif deaths > self._settings.max_recoveries:
            reason = f"The process that brings it about died {deaths} times: {state.message or 'without a word'}"
            following = Failed(message=reason)
            await left.give_up(reason)
        else:
            following = AwaitingRetry(message=TAKEN_UP, scheduled_time=datetime.now(UTC))
        await client.set_flow_run_state(run.id, following, force=True)
        log.warning("Deployment %s was %s and is %s (death %d)", run.name, state.name, following.name, deaths)


def _deployment_of(run: FlowRun) -> str:
    return str(run.parameters.get("deployment_id", run.id)).replace("/", "")
