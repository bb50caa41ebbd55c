"""
Exporting, the sentence: convert, and hand over when asked.

    prefect deployment run 'export/default' --param task='{"adapter_id": "…", …}'
"""

from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run as current_flow_run

from infra.exports.record import ExportRecord
from infra.exports.store import ExportFolder
from infra.flow_runs import ended_already
from infra.settings import settings
from peft_studio.errors import StudioError
from peft_studio.exports import ExportResult, ExportTask, export_id_of
from tasks.export import convert, hand_over


def name_of_run() -> str:
    """Name a run as what it makes."""
    task = ExportTask.model_validate(current_flow_run.parameters["task"])
    return f"{task.name} as {task.config.format}"


def drop_half_made(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Remove what a cancelled run has left; its ``except`` may never have run."""
    ExportFolder(export_id_of(UUID(str(flow_run.id))), settings()).drop()


@flow(name="export", flow_run_name=name_of_run, on_cancellation=[drop_half_made])
def export(task: ExportTask) -> ExportResult | State:
    """Export one adapter, from its files to those that others load."""
    record = ExportRecord.current()
    with record.alone():
        if end := ended_already():
            return end
        try:
            result = convert(task)
            if task.create:
                result = hand_over(task, result)
        except StudioError as error:
            record.fail(error.message)
            raise
        record.finish(result)
        return result
