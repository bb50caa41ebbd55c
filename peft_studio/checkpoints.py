"""A job's checkpoints, as users see them: read from the run directory, without what it takes to make one."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from peft_studio.run_dir import RunDir


class Checkpoint(BaseModel):
    """A place from which training can go on; each is also an ordinary PEFT adapter."""

    step: int = Field(description="Optimizer steps done.")
    epoch: float | None = Field(description="Times that training had gone through the rows.")
    path: str
    size_bytes: int
    created_at: datetime
    loss: float | None = Field(description="Of the last step before it.")


class _Progress(BaseModel):
    """What is shown of a checkpoint's ``progress.json``."""

    step: int
    epoch: float | None = None
    loss: float | None = None


def list_checkpoints(run: RunDir) -> list[Checkpoint]:
    """Return the whole checkpoints that are there, oldest first; the trainer keeps the newest two."""
    found = [checkpoint for folder in run.checkpoints.glob("step-*") if (checkpoint := _read(folder))]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def _read(folder: Path) -> Checkpoint | None:
    """Read one; None where it is not whole, or is being deleted at this moment."""
    try:
        written = (folder / "manifest.json").stat().st_mtime
        progress = _Progress.model_validate_json((folder / "progress.json").read_bytes())
        size = sum(path.stat().st_size for path in folder.iterdir())
    except (OSError, ValidationError):
        return None
    return Checkpoint(
        path=str(folder), size_bytes=size, created_at=datetime.fromtimestamp(written, UTC), **progress.model_dump()
    )
