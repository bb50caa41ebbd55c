"""Forgetting a deployment that nobody can take off: what may be left of it is on record, with who wanted that."""

import logging

from infra.deploying.deployments import AdapterDeployments
from infra.deploying.runs import DeployRuns
from infra.machines.ledger import studio_id
from infra.serving.records import Deployments
from infra.settings import Settings
from peft_studio.errors import NotFound, StudioError
from peft_studio.machine_names import hosted_name

log = logging.getLogger(__name__)


class Dismissals:
    """For accounts that are lost: their deployments would be waited for, and the accounts kept, for ever."""

    def __init__(self, deployments: AdapterDeployments, records: Deployments, runs: DeployRuns, settings: Settings):
        self._deployments = deployments
        self._records = records
        self._runs = runs
        self._settings = settings

    async def dismiss(self, deployment_id: str, key_name: str) -> None:
        """
        Take a deployment off as anybody would; where that cannot be done or seen, write so down and forget it.

        What is there all the same is removed by the sweep, should the studio be connected to its account again.
        """
        try:
            return await self._deployments.remove(deployment_id)
        except NotFound:
            raise
        except StudioError as error:
            issue = error.message
        name = hosted_name(studio_id(self._settings), deployment_id)
        told = (
            f"{deployment_id} was forgotten, as asked for with the key {key_name!r}, and was not seen to be gone: "
            f"{issue} Look for {name!r} at its platform: it may cost money."
        )
        log.warning(told)
        await self._runs.note_dismissed(deployment_id, told)
        await self._records.delete(deployment_id)
