"""
Weights & Biases, by its own library.

The library sends in the background and goes on trying for days; what has arrived is asked of the server at the end.
Opened again, it asks the server for the run's last step, and drops steps that are there (``resume="allow"``).
https://docs.wandb.ai/ref/python/sdk/functions/init
"""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import wandb

from peft_studio.jobs import JobStatus
from peft_studio.trackers.answers import SECONDS, ask
from peft_studio.trackers.contract import Destination, Ending, Opened, Row, TrackerUnavailable

# 255 is what the library itself ends a run with that was interrupted; the server shows such a run as killed.
_EXIT_CODES = {JobStatus.COMPLETED: 0, JobStatus.FAILED: 1, JobStatus.CANCELLED: 255}
_INIT_SECONDS = 30.0
_SUMMARY = """query Arrived($entity: String, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { state historyLineCount summaryMetrics } } }"""


class Wandb:
    """One run."""

    _run: wandb.Run
    _destination: Destination

    def open(self, destination: Destination) -> Opened:
        """Begin the run, or go on with it; offline it is begun anew, in a folder of its own."""
        self._destination = destination
        if not destination.offline:
            self._check_key()
        try:
            self._run = wandb.init(
                id=destination.run_id,
                name=destination.name,
                project=destination.project,
                entity=destination.entity,
                tags=destination.tags,
                config=destination.config,
                dir=destination.folder,
                mode="offline" if destination.offline else "online",
                resume=None if destination.offline else "allow",
                settings=_settings(destination),
            )
        except wandb.Error as error:
            raise TrackerUnavailable(f"it did not begin the run ({type(error).__name__})") from None
        if destination.offline:
            return Opened(folder=self._run.settings.sync_dir)
        return Opened(last_step=self._run.starting_step - 1 if self._run.resumed else None, url=self._run.url)

    def log(self, rows: Sequence[Row]) -> None:
        """Hand rows to the library, which writes them to its file and sends them by and by."""
        for row in rows:
            self._run.log({**row.metrics, "_timestamp": row.time}, step=row.step)

    def finish(self, ending: Ending) -> None:
        """Mark the run as ended, and ask the server if its last step has arrived."""
        self._run.summary.update({**ending.metrics, "job_status": ending.status.value})
        self._run.finish(exit_code=_EXIT_CODES.get(ending.status, 1))
        if self._destination.offline or ending.last_step is None:
            return
        entity, project = self._run.entity, self._run.project
        found = self._ask(_SUMMARY, entity=entity, project=project, run=self._destination.run_id)
        arrived = json.loads(((found.get("project") or {}).get("run") or {}).get("summaryMetrics") or "{}")
        if arrived.get("_step") != ending.last_step:
            raise TrackerUnavailable("not all that was sent has arrived")

    def _check_key(self) -> None:
        """Refuse a key that opens nothing here: the library would ask for another for a long time."""
        if not self._ask("query Viewer { viewer { username entity } }").get("viewer"):
            raise TrackerUnavailable("it refuses the credentials (401)", refused=True)

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        key = self._destination.secret("api_key") or ""
        with httpx.Client(auth=("api", key), timeout=SECONDS) as client:
            body = {"query": query, "variables": variables}
            answer = ask(client, "POST", f"{self._destination.url}/graphql", json=body)
        return (answer.get("data") or {}) if isinstance(answer, dict) else {}


def _settings(destination: Destination) -> wandb.Settings:
    """Send metrics and what we say of the run; nothing of this machine, its packages, its code or its console."""
    account = {} if destination.offline else {"api_key": destination.secret("api_key"), "base_url": destination.url}
    return wandb.Settings(
        **account,  # pyright: ignore[reportArgumentType]
        init_timeout=_INIT_SECONDS,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_save_requirements=False,
        x_file_stream_retry_max=5,  # what is not taken then is sent when the run is opened again
        x_file_stream_retry_wait_max_seconds=10,
        x_graphql_retry_max=5,
        x_graphql_retry_wait_max_seconds=10,
    )
