"""Evaluations whose process is gone are begun again."""

from pathlib import Path

from prefect.client.schemas.objects import FlowRun

from infra.jobs.anew_recovery import AnewRecovery
from infra.settings import EVALUATION_DEPLOYMENT
from peft_studio.evaluations import evaluation_id_of


class EvaluationRecovery(AnewRecovery):
    """Looks after evaluations, which leave nothing half made."""

    flows = (EVALUATION_DEPLOYMENT.partition("/")[0],)
    what = "evaluation"

    def _folder(self, run: FlowRun) -> Path:
        return self._settings.evaluations / evaluation_id_of(run.id)
