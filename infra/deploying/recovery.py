"""Deployments whose flow run's process is gone are gone on with, a few times; what was cancelled is taken off."""

import logging
from pathlib import Path

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State

from infra.credentials import CredentialsInPrefect
from infra.deploying.bringing import Bringing
from infra.deploying.hosting import Hosting
from infra.jobs.anew_recovery import AnewRecovery
from infra.serving.records import DeploymentsInPrefect
from infra.settings import DEPLOY_DEPLOYMENT
from peft_studio.errors import ResourceUnavailable

log = logging.getLogger(__name__)


class DeployRecovery(AnewRecovery):
    """Looks after the runs of deployments: what they have placed is found again by its name."""

    flows = (DEPLOY_DEPLOYMENT.partition("/")[0],)
    what = "deployment"

    def _folder(self, run: FlowRun) -> Path:
        return self._settings.deploying / _deployment_of(run)

    async def _take_up(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        try:
            await super()._take_up(client, run, state)
        except ResourceUnavailable as error:  # it is looked at again
            log.warning("Deployment %s cannot be looked after: %s", run.name, error.message)

    async def _clear_away(self, client: PrefectClient, run: FlowRun, failure: str | None) -> None:
        hosting = Hosting(CredentialsInPrefect(), self._settings)
        left = Bringing(_deployment_of(run), DeploymentsInPrefect(client), hosting, self._settings)
        if failure is None:
            await left.withdraw("Its flow run was cancelled.")
        else:
            await left.give_up(failure)


def _deployment_of(run: FlowRun) -> str:
    return str(run.parameters.get("deployment_id", run.id)).replace("/", "")
