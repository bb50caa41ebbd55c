"""
What a studio answers where the answer is more than one of the domain's own models: pages, receipts, and the like.

Fields that are not known here are ignored: a client may be older than its studio.
"""

from peft_studio.answers.access import Key, KeyCreated, KeyList, Ticket
from peft_studio.answers.adapters import (
    AdapterList,
    AdapterPublishing,
    AdapterUploaded,
    Deployment,
    DeploymentCreated,
    DeploymentList,
    DeploymentTested,
)
from peft_studio.answers.answer import Answer, Deleted
from peft_studio.answers.budgets import BudgetList
from peft_studio.answers.datasets import DatasetList
from peft_studio.answers.experiments import ExperimentList
from peft_studio.answers.jobs import (
    CheckpointSaved,
    JobChanged,
    JobCreated,
    JobList,
    JobPlan,
    JobPromoted,
    JobReproduced,
    MetricsHistory,
)
from peft_studio.answers.machines import MachineList
from peft_studio.answers.platforms import (
    ModelSearch,
    PlatformConnected,
    PlatformDisconnected,
    PlatformList,
    ResourceList,
    ResourcePricing,
)
from peft_studio.answers.sweeps import SweepCancelled, SweepList

__all__ = [
    "AdapterList",
    "AdapterPublishing",
    "AdapterUploaded",
    "Answer",
    "BudgetList",
    "CheckpointSaved",
    "DatasetList",
    "Deleted",
    "Deployment",
    "DeploymentCreated",
    "DeploymentList",
    "DeploymentTested",
    "ExperimentList",
    "JobChanged",
    "JobCreated",
    "JobList",
    "JobPlan",
    "JobPromoted",
    "JobReproduced",
    "Key",
    "KeyCreated",
    "KeyList",
    "MachineList",
    "MetricsHistory",
    "ModelSearch",
    "PlatformConnected",
    "PlatformDisconnected",
    "PlatformList",
    "ResourceList",
    "ResourcePricing",
    "SweepCancelled",
    "SweepList",
    "Ticket",
]
