"""
PEFT Studio: the words of the domain, the trainer program, the client and the command line.

The names below are the public ones. They are imported when they are first used, so that the trainer, which
needs few of them, starts without the client.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_studio.adapters import Adapter, UploadMetadata
    from peft_studio.answers import (
        AdapterList,
        AdapterPublishing,
        AdapterUploaded,
        BudgetList,
        CheckpointSaved,
        DatasetList,
        Deleted,
        Deployment,
        DeploymentCreated,
        DeploymentList,
        DeploymentTested,
        ExperimentList,
        JobChanged,
        JobCreated,
        JobList,
        JobPlan,
        JobPromoted,
        JobReproduced,
        KeyCreated,
        KeyList,
        MachineList,
        MetricsHistory,
        ModelSearch,
        PlatformConnected,
        PlatformDisconnected,
        PlatformList,
        ResourceList,
        ResourcePricing,
        SweepCancelled,
        SweepList,
        Ticket,
    )
    from peft_studio.budgets import Budget
    from peft_studio.catalog import ModelDetails
    from peft_studio.checkpoints import Checkpoint
    from peft_studio.client import AsyncClient, Client
    from peft_studio.config import (
        Algorithm,
        DeployConfig,
        LongRows,
        ModelSource,
        Objective,
        Precision,
        Quantization,
        TrainingConfig,
    )
    from peft_studio.deployments import DeploymentConfig
    from peft_studio.effect import EffectTest, Verdict
    from peft_studio.errors import (
        AuthenticationFailed,
        BudgetExceeded,
        Conflict,
        CredentialRefused,
        DeployFailed,
        DiskFull,
        Diverged,
        ExportFailed,
        InsufficientCredits,
        InternalError,
        InvalidConfig,
        JobNotFound,
        MachineLost,
        NotFound,
        OutOfMemory,
        PayloadTooLarge,
        PermissionDenied,
        PlatformNotConnected,
        RateLimitExceeded,
        ResourceUnavailable,
        ResumeMismatch,
        StudioError,
        TimedOut,
        TrainerDied,
        TrainingFailed,
        Unreachable,
    )
    from peft_studio.evaluations import AdapterEvaluation, EvaluationPage, EvaluationWanted
    from peft_studio.events import Event, Failure, Log, Metrics, Status
    from peft_studio.experiments import Comparison, Experiment
    from peft_studio.exports import Export, ExportConfig, ExportPage
    from peft_studio.grpo import GrpoConfig, RewardConfig
    from peft_studio.jobs import Job, JobStatus, Phase, TerminationReason
    from peft_studio.lineage import Lineage
    from peft_studio.machines import MachineReceipt
    from peft_studio.platforms import Platform
    from peft_studio.previews import DatasetPreview
    from peft_studio.registries import HuggingFaceRegistry, S3Registry
    from peft_studio.schedules import Schedule, ScheduleChanges, ScheduleConfig
    from peft_studio.stored_datasets import Dataset
    from peft_studio.sweeps import Sweep, SweepConfig

__all__ = [
    "Adapter",
    "AdapterEvaluation",
    "AdapterList",
    "AdapterPublishing",
    "AdapterUploaded",
    "Algorithm",
    "AsyncClient",
    "AuthenticationFailed",
    "Budget",
    "BudgetExceeded",
    "BudgetList",
    "Checkpoint",
    "CheckpointSaved",
    "Client",
    "Comparison",
    "Conflict",
    "CredentialRefused",
    "Dataset",
    "DatasetList",
    "DatasetPreview",
    "Deleted",
    "DeployConfig",
    "DeployFailed",
    "Deployment",
    "DeploymentConfig",
    "DeploymentCreated",
    "DeploymentList",
    "DeploymentTested",
    "DiskFull",
    "Diverged",
    "EffectTest",
    "EvaluationPage",
    "EvaluationWanted",
    "Event",
    "Experiment",
    "ExperimentList",
    "Export",
    "ExportConfig",
    "ExportFailed",
    "ExportPage",
    "Failure",
    "GrpoConfig",
    "HuggingFaceRegistry",
    "InsufficientCredits",
    "InternalError",
    "InvalidConfig",
    "Job",
    "JobChanged",
    "JobCreated",
    "JobList",
    "JobNotFound",
    "JobPlan",
    "JobPromoted",
    "JobReproduced",
    "JobStatus",
    "KeyCreated",
    "KeyList",
    "Lineage",
    "Log",
    "LongRows",
    "MachineList",
    "MachineLost",
    "MachineReceipt",
    "Metrics",
    "MetricsHistory",
    "ModelDetails",
    "ModelSearch",
    "ModelSource",
    "NotFound",
    "Objective",
    "OutOfMemory",
    "PayloadTooLarge",
    "PermissionDenied",
    "Phase",
    "Platform",
    "PlatformConnected",
    "PlatformDisconnected",
    "PlatformList",
    "PlatformNotConnected",
    "Precision",
    "Quantization",
    "RateLimitExceeded",
    "ResourceList",
    "ResourcePricing",
    "ResourceUnavailable",
    "ResumeMismatch",
    "RewardConfig",
    "S3Registry",
    "Schedule",
    "ScheduleChanges",
    "ScheduleConfig",
    "Status",
    "StudioError",
    "Sweep",
    "SweepCancelled",
    "SweepConfig",
    "SweepList",
    "TerminationReason",
    "Ticket",
    "TimedOut",
    "TrainerDied",
    "TrainingConfig",
    "TrainingFailed",
    "Unreachable",
    "UploadMetadata",
    "Verdict",
]

_HOMES = (
    *("errors", "config", "jobs", "events", "adapters", "catalog", "checkpoints", "deployments", "experiments"),
    *(
        "effect",
        "grpo",
        "budgets",
        "exports",
        "machines",
        "platforms",
        "previews",
        "stored_datasets",
        "sweeps",
        "schedules",
        "answers",
        "client",
    ),
    *("lineage", "registries", "evaluations"),
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"peft_studio.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
