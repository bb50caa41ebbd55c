"""Registries: where a job, or a request, wants its adapter published, and what became of that."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# What the Hub takes as OWNER/NAME; a token may write for several owners, so the owner is always said.
Repository = Annotated[
    str, StringConstraints(max_length=96, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$")
]
# Names of buckets: 3 to 63 of lower case, digits, dots and dashes (AWS, "General purpose bucket naming rules").
Bucket = Annotated[
    str,
    StringConstraints(
        max_length=900, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_'()*=-][A-Za-z0-9!_.'()*=-]*)*/?$"
    ),
]
MOST_REGISTRIES = 8


class HuggingFaceRegistry(BaseModel):
    """A model repository on the Hugging Face Hub; it is created where there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["huggingface"]
    repository: Repository = Field(description="OWNER/NAME of the repository.")
    private: bool = Field(
        default=True, description="Whether only its owner sees it; a public one is refused unless this is false."
    )

    @property
    def platform(self) -> str:
        """The platform whose credentials it takes."""
        return "huggingface"

    @property
    def place(self) -> str:
        """What it is called, however else it is described."""
        return f"huggingface:{self.repository}"


class S3Registry(BaseModel):
    """A prefix of an S3 bucket that exists, at Amazon or wherever the connected account is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["s3"]
    url: Bucket = Field(description="s3://BUCKET/PREFIX below which versions are put.")

    @property
    def platform(self) -> str:
        """The platform whose credentials it takes."""
        return "s3"

    @property
    def place(self) -> str:
        """What it is called, however else it is described."""
        return self.url.rstrip("/")


Registry = Annotated[HuggingFaceRegistry | S3Registry, Field(discriminator="kind")]
Registries = Annotated[list[Registry], Field(max_length=MOST_REGISTRIES)]


class PublicationStatus(StrEnum):
    """How far a publication has come."""

    PENDING = "pending"
    PUBLISHED = "published"
    FAILED = "failed"


class Publication(BaseModel):
    """An adapter in a registry, or on its way there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    registry: Registry
    status: PublicationStatus
    version: str | None = Field(default=None, description="The same files have the same version, in every registry.")
    revision: str | None = Field(default=None, description="The commit on the Hub; the version's folder in a bucket.")
    url: str | None = Field(default=None, description="Where this very version is.")
    error: str | None = Field(default=None, description="Why it is not there.")
    at: datetime = Field(description="When it came to this.")
