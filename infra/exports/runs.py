"""Exports as flow runs."""

from infra.adapters.runs import Runs, RunsInMemory, RunsInPrefect, RunsOnServer
from infra.prefect_database import PrefectDatabase
from infra.settings import EXPORT_DEPLOYMENT, EXPORT_QUEUE

ExportRuns = Runs
ExportRunsInMemory = RunsInMemory


class ExportRunsOnServer(RunsOnServer):
    """Flow runs of ``export`` by way of Prefect's server alone."""

    def __init__(self) -> None:
        super().__init__(EXPORT_DEPLOYMENT, EXPORT_QUEUE)


class ExportRunsInPrefect(RunsInPrefect):
    """The same, read from Prefect's database."""

    def __init__(self, database: PrefectDatabase):
        super().__init__(database, EXPORT_DEPLOYMENT, EXPORT_QUEUE)
