"""Exports whose process is gone are begun again."""

from pathlib import Path

from prefect.client.schemas.objects import FlowRun

from infra.exports.store import ExportFolder
from infra.jobs.anew_recovery import AnewRecovery
from infra.settings import EXPORT_DEPLOYMENT
from peft_studio.exports import export_id_of


class ExportRecovery(AnewRecovery):
    """Looks after exports."""

    flows = (EXPORT_DEPLOYMENT.partition("/")[0],)
    what = "export"

    def _folder(self, run: FlowRun) -> Path:
        return ExportFolder(export_id_of(run.id), self._settings).path

    def _drop(self, run: FlowRun) -> None:
        ExportFolder(export_id_of(run.id), self._settings).drop()
