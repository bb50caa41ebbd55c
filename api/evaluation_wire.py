"""Envelopes of evaluations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import Field

from api.wire import Whole
from peft_studio.evaluations import AdapterEvaluation, EvaluationResult, EvaluationWanted
from peft_studio.jobs import JobStatus


class EvaluationShown(Whole):
    """An evaluation as it is now."""

    evaluation_id: str
    adapter_id: str
    config: EvaluationWanted
    status: JobStatus
    step: str = Field(description="What it is at: queued, base model, adapter, judging, done …")
    progress: float = Field(description="From 0 to 1.")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    result: EvaluationResult | None = Field(description="What came of it; null before it is completed.")
    error: str | None = Field(description="Why it failed; null where it did not.")

    @classmethod
    def of(cls, evaluation: AdapterEvaluation) -> Self:
        """Show an evaluation."""
        return cls.model_construct(**dict(evaluation))


class EvaluationList(Whole):
    """A page of evaluations, newest first."""

    evaluations: Sequence[EvaluationShown]
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class EvaluationDeleted(Whole):
    """An evaluation that is no longer there."""

    success: bool = True
    evaluation_id: str
