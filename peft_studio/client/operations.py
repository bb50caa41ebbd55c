"""All operations, by section of the API."""

from peft_studio.client.access import AccessOperations
from peft_studio.client.adapters import AdapterOperations
from peft_studio.client.budgets import BudgetOperations
from peft_studio.client.datasets import DatasetOperations
from peft_studio.client.deployments import DeploymentOperations
from peft_studio.client.evaluations import EvaluationOperations
from peft_studio.client.experiments import ExperimentOperations
from peft_studio.client.exports import ExportOperations
from peft_studio.client.jobs import JobOperations
from peft_studio.client.machines import MachineOperations
from peft_studio.client.platforms import PlatformOperations
from peft_studio.client.schedules import ScheduleOperations
from peft_studio.client.sweeps import SweepOperations


class Operations(
    JobOperations,
    DatasetOperations,
    AdapterOperations,
    DeploymentOperations,
    ExportOperations,
    EvaluationOperations,
    ExperimentOperations,
    PlatformOperations,
    AccessOperations,
    BudgetOperations,
    MachineOperations,
    SweepOperations,
    ScheduleOperations,
):
    """What a studio can be asked for."""
