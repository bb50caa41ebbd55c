"""Where a job trains, what it may cost, how its adapter is judged: what of a configuration does not change it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.choices import Name, Sha256
from peft_studio.evaluation.comparison import EvaluationConfig
from peft_studio.registries import Registries

Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Placement(BaseModel):
    """Which machine a job gets, for how much money and time, on condition of which data, and what becomes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    provider: Name = "local"
    resource_id: Name | None = Field(
        default=None, description="One of the provider's machines; by default, or as 'auto', the one that costs least."
    )
    spot: bool = Field(
        default=False,
        description="Rent at the lower price of a machine that may be taken away; training then goes on elsewhere.",
    )
    max_cost: Limit | None = Field(
        default=None, description="US dollars; a job that reaches them saves a checkpoint, and its machine ends."
    )
    max_duration: Limit | None = Field(
        default=None, description="Minutes on a rented machine, all attempts together; what then happens is the same."
    )
    dataset_sha256: Sha256 | None = Field(default=None, description="Train on data with this content, or not at all.")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="How the adapter is measured beside its base model."
    )
    registries: Registries = Field(default=[], description="Where else the adapter is published.")

    @property
    def wanted_resource(self) -> str | None:
        """The machine that is asked for by name; None where the studio is to choose."""
        return None if self.resource_id == "auto" else self.resource_id


class RaisedLimits(BaseModel):
    """Limits that a job is tried again with, in the place of its configuration's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_cost: Limit | None = Field(default=None, description="US dollars, what was spent before included.")
    max_duration: Limit | None = Field(default=None, description="Minutes on rented machines, those before included.")
