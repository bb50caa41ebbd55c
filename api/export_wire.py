"""Envelopes of exports."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import Field

from api.wire import Whole
from peft_studio.exports import Export, ExportConfig, ExportResult
from peft_studio.jobs import JobStatus


class ExportShown(Whole):
    """An export as it is now."""

    export_id: str
    adapter_id: str
    config: ExportConfig
    status: JobStatus
    step: str = Field(description="What it is at: queued, loading, merging, converting, verifying, storing, done …")
    progress: float = Field(description="From 0 to 1.")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    path: str | None = Field(description="The folder of its files on the studio's machine, once it is whole.")
    result: ExportResult | None = Field(description="What came of it; null before it is completed.")
    error: str | None = Field(description="Why it failed; null where it did not.")

    @classmethod
    def of(cls, export: Export) -> Self:
        """Show an export."""
        return cls.model_construct(**dict(export))


class ExportList(Whole):
    """A page of exports, newest first."""

    exports: Sequence[ExportShown]
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class ExportDeleted(Whole):
    """An export that is no longer there."""

    success: bool = True
    export_id: str
