"""
MLflow, by its own library (``mlflow-skinny`` is enough).

Every batch has arrived when the call returns. A metric that is sent again with its time and step is the same row of the
server's table, so that a batch whose answer was lost does no harm. https://mlflow.org/docs/latest/api_reference/
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from peft_studio.jobs import JobStatus
from peft_studio.trackers.contract import Destination, Ending, Opened, Row, TrackerUnavailable

V = TypeVar("V")
_STATES = {JobStatus.COMPLETED: "FINISHED", JobStatus.FAILED: "FAILED", JobStatus.CANCELLED: "KILLED"}
_TAG = "peft_studio.run_id"  # by which a run is found again
_MOST_METRICS, _MOST_PARAMS, _LONGEST_PARAM = 1000, 100, 6000  # of one request, by the server's document
_ENVIRONMENT = {"token": "TOKEN", "username": "USERNAME", "password": "PASSWORD"}


class Mlflow:
    """One run."""

    _client: MlflowClient
    _run_id: str

    def open(self, destination: Destination) -> Opened:
        """Begin the run, or go on with it; it is found again by a tag, since the server makes its id."""
        # It takes them from nowhere else; the process list shows nothing that is set after the beginning.
        for name, variable in _ENVIRONMENT.items():
            if (secret := destination.secret(name)) is not None:
                os.environ[f"MLFLOW_TRACKING_{variable}"] = secret
        os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
        self._client = MlflowClient(tracking_uri=destination.url)
        with _told():
            experiment = self._experiment(destination.project)
            found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{destination.run_id}'", max_results=1)
            run = found[0] if found else self._begin(experiment, destination)
            self._run_id = run.info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            self._describe(destination)
            last = self._last_step(run.data.metrics)
        return Opened(last_step=last, url=f"{destination.url}/#/experiments/{experiment}/runs/{self._run_id}")

    def log(self, rows: Sequence[Row]) -> None:
        """Send rows; they have arrived when this returns."""
        metrics = [Metric(name, value, int(row.time * 1000), row.step) for row in rows for name, value in _of(row)]
        with _told():
            for some in _parts(metrics, _MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=some)

    def finish(self, ending: Ending) -> None:
        """Send the final metrics and mark the run as ended."""
        step, time = ending.last_step or 0, int(ending.time * 1000)
        final = [Metric(f"final.{name}", value, time, step) for name, value in ending.metrics.items()]
        with _told():
            for some in _parts(final, _MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=some)
            self._client.set_terminated(self._run_id, _STATES.get(ending.status, "FAILED"), time)

    def _experiment(self, name: str) -> str:
        if known := self._client.get_experiment_by_name(name):
            return known.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:
            if known := self._client.get_experiment_by_name(name):  # another job was faster
                return known.experiment_id
            raise

    def _begin(self, experiment: str, destination: Destination) -> Any:
        tags = {_TAG: destination.run_id, **{f"tag.{tag}": "true" for tag in destination.tags}}
        started = int(destination.started_at * 1000)
        return self._client.create_run(experiment, started, tags, destination.name)

    def _describe(self, destination: Destination) -> None:
        params = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in destination.config.items()]
        for some in _parts(params, _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=some)
        tags = [RunTag(f"tag.{tag}", "true") for tag in destination.tags]
        self._client.log_batch(self._run_id, tags=tags)

    def _last_step(self, metrics: dict[str, float]) -> int | None:
        """Ask how far the training loss has come; what is sent again from there on is the same rows."""
        if "loss" not in metrics:
            return None
        return max((point.step for point in self._client.get_metric_history(self._run_id, "loss")), default=0) - 1


def _of(row: Row) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in row.metrics.items() if name != "step")


class _told:
    """Turn what the library raises into what it means, without its text, which may repeat what was sent."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, MlflowException):
            status = error.get_http_status_code()
            code = str(error.error_code)
            refused = status in (401, 403) or " 401" in str(error) or " 403" in str(error)
            reason = "it refuses the credentials" if refused else f"it cannot be reached or does not take it ({code})"
            raise TrackerUnavailable(reason, refused=refused) from None


def _parts(values: Sequence[V], most: int) -> Iterator[Sequence[V]]:
    return (values[begin : begin + most] for begin in range(0, len(values), most))
