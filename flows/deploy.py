"""
Deploying, the sentence: place, wait, see the effect; what does not come to a good end leaves nothing that bills.

It is started by ``POST /api/v1/deployments``, which has written down what it is about.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled

from infra.flow_runs import ended_already
from infra.jobs.heartbeats import alone
from infra.settings import settings
from peft_studio.errors import Conflict, StudioError
from tasks.deployment import clear_away, place, see_effect, wait, withdraw


def name_of_run() -> str:
    """Name a run as its deployment."""
    return str(current_flow_run.parameters["deployment_id"])


def take_off(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Take off what a cancelled run has placed; its ``except`` may never have run."""
    withdraw(str(flow_run.parameters["deployment_id"]), "Its flow run was cancelled.")


@flow(name="deploy", flow_run_name=name_of_run, on_cancellation=[take_off])
def deploy(deployment_id: str) -> State | None:
    """Bring one deployment about, from its record to an adapter that answers."""
    with alone(settings().deploying / deployment_id):
        if end := ended_already():
            return end
        try:
            place(deployment_id)
            wait(deployment_id)
            see_effect(deployment_id)
        except Conflict as taken_off:
            withdraw(deployment_id, taken_off.message)
            return Cancelled(message=taken_off.message)
        except StudioError as error:
            clear_away(deployment_id, error.message)
            raise
        except Exception as error:
            clear_away(deployment_id, f"It broke off ({type(error).__name__}): see the log of its flow run.")
            raise
        return None
