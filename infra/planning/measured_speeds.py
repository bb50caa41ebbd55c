"""
How fast rented machines have really been: one line for each finished job, in a file of the data directory.

A line is written whole or not at all, so that several flows may append at the same time; one that cannot be read is
passed over.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from pydantic import BaseModel, Field, ValidationError

from infra.settings import Settings
from peft_studio.jobs import TrainingSummary
from peft_studio.machines import MachineReceipt
from peft_studio.plan import Plan

FILE = "measured-speeds.jsonl"
KEPT = 20  # of one kind of machine, the newest
_READ_BYTES = 1 << 20  # of the file's end: some thousand jobs
Kind = tuple[str, str]  # provider and resource id


class MeasuredJob(BaseModel):
    """One job that has finished on one rented machine."""

    provider: str
    resource_id: str
    job_id: str
    parameters: int = Field(gt=0, description="Of the base model.")
    tokens: int = Field(gt=0, description="That were trained on.")
    gradient_checkpointing: bool = False
    training_seconds: float = Field(gt=0, description="In training steps.")
    other_seconds: float = Field(ge=0, description="From renting to giving back, without training steps.")


def note(settings: Settings, plan: Plan, receipts: Sequence[MachineReceipt], summary: TrainingSummary) -> None:
    """Note a finished job; one that had several machines, or none that was rented, says little and is left out."""
    rented = [receipt for receipt in receipts if receipt.rented_at is not None]
    if len(rented) != 1 or not (receipt := rented[0]).rented_at or not receipt.released_at:
        return
    total = (receipt.released_at - receipt.rented_at).total_seconds()
    try:
        job = MeasuredJob(
            provider=receipt.provider,
            resource_id=receipt.resource_id,
            job_id=receipt.job_id,
            parameters=plan.model.parameters,
            tokens=summary.tokens,
            gradient_checkpointing=plan.config.gradient_checkpointing,
            training_seconds=summary.seconds,
            other_seconds=max(0.0, total - summary.seconds),
        )
    except ValidationError:  # nothing was trained
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / FILE).open("ab", buffering=0) as file:
        file.write(job.model_dump_json().encode() + b"\n")


def read(settings: Settings) -> Mapping[Kind, Sequence[MeasuredJob]]:
    """Return the jobs that have finished on each kind of machine, the newest last."""
    try:
        with (settings.data_dir / FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _READ_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    return by_kind(job for line in lines if (job := _parsed(line)) is not None)


def by_kind(jobs: Iterable[MeasuredJob]) -> Mapping[Kind, Sequence[MeasuredJob]]:
    """Sort jobs by the machines they ran on; of a job that was noted twice the last time counts."""
    kinds: dict[Kind, dict[str, MeasuredJob]] = {}
    for job in jobs:
        kinds.setdefault((job.provider, job.resource_id), {})[job.job_id] = job
    return {kind: list(found.values())[-KEPT:] for kind, found in kinds.items()}


def _parsed(line: bytes) -> MeasuredJob | None:
    with suppress(ValidationError):
        return MeasuredJob.model_validate_json(line)
    return None
