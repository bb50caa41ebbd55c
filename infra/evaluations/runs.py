"""Evaluations as flow runs."""

from infra.adapters.runs import RunsInPrefect
from infra.prefect_database import PrefectDatabase
from infra.settings import EVALUATION_DEPLOYMENT, EVALUATION_QUEUE


class EvaluationRunsInPrefect(RunsInPrefect):
    """Flow runs of ``evaluation``."""

    def __init__(self, database: PrefectDatabase):
        super().__init__(database, EVALUATION_DEPLOYMENT, EVALUATION_QUEUE)
