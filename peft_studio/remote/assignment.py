"""What the studio and a rented machine tell each other: the assignment, orders, a sign of life, and the end."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

CLAIMANT = "X-Claimant"  # made up by the machine, so that a claim that is repeated is known from another's
ORDERS, ALIVE, END = "orders.json", "alive.json", "end.json"
EVENTS, LOG, CHECKPOINTS, ADAPTER = "events", "log", "checkpoints", "adapter"  # folders of what is sent
RESULTS = ("summary.json", "evaluation.json", "failure.json")
PIECE_BYTES = 4 << 20  # the most that is sent at once of what grows


class InputFile(BaseModel):
    """A file to be fetched before the work begins; ``path`` is below the machine's work folder."""

    path: str
    url: str
    size: int


class Upload(BaseModel):
    """How files are sent: PUT to ``url/path``, or, with ``fields``, as forms that S3's POST policies allow."""

    url: str
    fields: dict[str, str] = {}
    prefix: str = Field(default="", description="Before each path, in a form's key.")


class Assignment(BaseModel):
    """A machine's work."""

    model_config = ConfigDict(extra="ignore")

    job_id: str
    machine: str
    inputs: list[InputFile]
    orders_url: str
    upload: Upload
    token: SecretStr | None = Field(default=None, description="For the studio's own address; S3's are signed.")
    secrets: dict[str, SecretStr] = Field(default={}, description="HF_TOKEN: what the hub wants to see.")
    deadline_seconds: float = Field(description="From the claim on. Then the machine saves what it has and ends.")
    checkpoint_seconds: float = Field(description="A checkpoint is saved and sent at least so often.")
    push_seconds: float = Field(default=1.0, description="Events are sent, and orders looked for, so often.")
    silence_seconds: float = Field(description="How long training goes on where the studio does not answer.")
    stop_seconds: float = Field(description="After the deadline: to save, send and end. Then the machine is ended.")
    model: str | None = Field(default=None, description="Where the base model lies, if it was sent along.")
    data: str | None = Field(default=None, description="Where the data set lies, if it was sent along.")
    evaluate: bool = True

    @field_serializer("token", "secrets", when_used="json")
    def _in_clear(self, value: Any) -> Any:
        # This is the one answer that carries them.
        if isinstance(value, dict):
            return {name: secret.get_secret_value() for name, secret in value.items()}
        return value.get_secret_value() if value else None


class Orders(BaseModel):
    """What the studio wants of a machine that works."""

    model_config = ConfigDict(extra="ignore")

    stop: str | None = Field(default=None, description="Why to save a checkpoint and end.")
    asked_at: float = Field(default=0.0, description="When a checkpoint was asked for last, by the studio's clock.")
    dismissed: bool = Field(default=False, description="Nothing that it sends is wanted any more.")


class Alive(BaseModel):
    """A machine's sign of life; a new one has another ``beat``."""

    beat: int
    seconds: float = Field(description="Since its claim.")
    machine_id: str = Field(default="", max_length=100, description="What its vendor calls it, by its own account.")


class End(BaseModel):
    """How the work ended; sent when everything else has been."""

    code: int = Field(description="The trainer's exit code, see ``peft_studio.trainer.outcome``.")
    reason: str = ""
    seconds: float
    events_bytes: int = Field(
        default=0, description="Length of the machine's events, so that none is waited for in vain."
    )
