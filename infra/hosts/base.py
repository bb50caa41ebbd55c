"""
What every platform that serves adapters does, and what it guarantees: the contract behind ``docs/add-a-host.md``.

A host is a thin translation of one platform's API. It keeps nothing and decides nothing: what is deployed, for how
long, and what is taken off again is the business of ``infra/deploying``, which records a deployment before it asks a
host for it. Everything a host makes carries the deployment's name, so that it is found again after a crash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from infra.serving.questions import Answered
from peft_studio.deployments import DeploymentConfig, DeploymentMetrics, DeploymentStatus
from peft_studio.effect import Said


class Limits(BaseModel):
    """What a platform can be asked for; more is refused with the field, before anything is made."""

    model_config = ConfigDict(frozen=True)

    replicas: int = Field(default=1, description="The most that one deployment may have.")
    rests: bool = Field(default=False, description="Whether min_replicas may be 0, so that it costs nothing unused.")
    scales: bool = Field(default=False, description="Whether it chooses by itself how many replicas there are.")
    instance_types: bool = Field(default=False, description="Whether instance_type can be chosen.")
    bills: bool = Field(description="Whether a deployment costs money while nobody uses it; such ones have a lease.")
    published: bool = Field(default=False, description="Whether it fetches the adapter from the Hugging Face Hub.")


class Wanted(BaseModel):
    """An adapter that is to be served, with all that any platform wants to know. Nothing in it is secret."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Unique for ever; at most 32 characters of [a-z0-9-], beginning with a letter.")
    folder: Path = Field(description="Where the adapter's files are on this machine, in PEFT's layout.")
    base_model: str = Field(description="Its id on the Hugging Face Hub, or a folder.")
    revision: str | None = Field(default=None, description="Commit of the base model.")
    rank: int
    target_modules: Sequence[str] = ()
    repository: str | None = Field(default=None, description="OWNER/NAME on the Hub where the adapter is published.")
    commit: str | None = Field(default=None, description="The commit of that repository.")
    config: DeploymentConfig = DeploymentConfig()


class Hosted(BaseModel):
    """A deployment as its platform shows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: DeploymentStatus
    endpoint: str | None = Field(default=None, description="The …/v1 address of an OpenAI-compatible API.")
    model: str | None = Field(default=None, description="What the adapter is called there.")
    base: str | None = Field(default=None, description="What its base model is called there, where it can be asked.")
    reason: str = Field(default="", description="The platform's own words on its state.")
    replicas: int | None = Field(default=None, description="How many are ready now.")
    hourly_rate: float | None = Field(default=None, description="US dollars for all replicas; None: it does not say.")

    def after(self, before: "Hosted | None") -> "Hosted":
        """Return it with what the adapter was called when it was deployed, where its platform does not keep that."""
        return self if self.model or before is None else self.model_copy(update={"model": before.model})


@dataclass(frozen=True)
class Door:
    """
    Where an OpenAI-compatible API lets us in; ``repr`` does not show the headers, which carry keys.

    ``body`` is what each request has to say besides the model.
    """

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: Mapping[str, str] = field(default_factory=dict[str, str])


class Host(Protocol):
    """
    One platform, with one account. Made anew for each piece of work: it holds no connection and no state.

    Every method may raise ``CredentialRefused``, ``InsufficientCredits``, ``RateLimitExceeded`` (with
    ``retry_after_seconds``) and ``ResourceUnavailable`` (no answer, or a failure of the platform's). All may be
    repeated: none makes a second thing where the first one is there.
    """

    limits: Limits

    def check(self, wanted: Wanted) -> None:
        """Raise ``InvalidConfig`` with the field that cannot be honoured; asks nobody."""
        ...

    async def deploy(self, wanted: Wanted) -> Hosted:
        """
        Go on with a deployment until the platform has been asked for all of it; what is there by its name is used.

        Returns as soon as the platform has accepted it (``deploying``), or later. Raises ``InvalidConfig`` where the
        platform finds fault with what is asked for, ``NoCapacity`` where it has no room. What was made until then is
        left: whoever called takes it off with ``remove``.
        """
        ...

    async def look(self, name: str) -> Hosted | None:
        """Return a deployment as it is now; None where nothing of it is left, neither upload nor machine."""
        ...

    async def names(self) -> list[str]:
        """Return the names of all that the account has there, whoever made it; paged to the end."""
        ...

    async def remove(self, name: str) -> None:
        """Take everything off that carries the name; silent where it is gone. Does not wait until it is."""
        ...

    async def ask(self, hosted: Hosted, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have a running deployment answer; raises ``InvalidConfig`` with the field that it does not take."""
        ...

    async def say(self, hosted: Hosted, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """
        Have the adapter or its base (``model``) answer a text or messages greedily, token by token where it tells.

        Where the platform gives no log-probabilities, ``Said`` holds the text's pieces without any.
        """
        ...

    def door(self, hosted: Hosted) -> Door | None:
        """Return where requests in OpenAI's form can be handed on to; None where it has no such API."""
        ...

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return how busy it is, as the platform measures it; None where it does not tell."""
        ...
