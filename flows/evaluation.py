"""
Evaluating, the sentence: measure, and have it judged when asked.

    prefect deployment run 'evaluation/default' --param task='{"wanted": {"adapter_id": "…"}, …}'
"""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run as current_flow_run

from infra.evaluations.record import EvaluationRecord
from infra.flow_runs import ended_already
from peft_studio.errors import StudioError
from peft_studio.evaluations import EvaluationResult, EvaluationTask
from tasks.evaluate_adapter import ask_judge, measure


def name_of_run() -> str:
    """Name a run as what it evaluates."""
    return EvaluationTask.model_validate(current_flow_run.parameters["task"]).name


@flow(name="evaluation", flow_run_name=name_of_run)
def evaluation(task: EvaluationTask) -> EvaluationResult | State:
    """Evaluate one adapter, from its files to figures."""
    record = EvaluationRecord.current()
    with record.alone():
        if end := ended_already():
            return end
        try:
            found = measure(task)
            judge = task.wanted.judge
            result = ask_judge(task, judge, found) if judge else found.result
        except StudioError as error:
            record.fail(error.message)
            raise
        record.finish(result)
        return result
