"""The promotion gate: whether an adapter may be deployed, by what it gains on held-out rows; and who overrode it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.evaluation.comparison import Measure, ModelComparison

Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]


class DeployIf(BaseModel):
    """
    What an adapter has to gain to be deployed.

    The gain is how much better it is than its base model by one measure, in the measure's unit. It must be at least
    ``min_gain`` at that end of its confidence interval where it is least: 0 is no regression, for certain. Where no row
    differs the gain is 0 for certain, which passes at 0; the verdict says that nothing more was shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    measure: Measure = Measure.LOSS
    min_gain: float = Field(
        default=0.0, ge=-1e6, le=1e6, description="Below 0: so much worse it may be and is deployed all the same."
    )


class Override(BaseModel):
    """That somebody had an adapter deployed which the gate had refused."""

    model_config = ConfigDict(frozen=True)

    key_id: str = Field(description="The API key that it was asked for with.")
    key_name: str
    at: datetime
    reason: str


class Promotion(BaseModel):
    """What the gate made of an adapter."""

    model_config = ConfigDict(frozen=True)

    rule: DeployIf
    allowed: bool = Field(description="Whether the gate let it pass; an override does not change that.")
    reason: str
    comparison: ModelComparison | None = Field(default=None, description="What it rests on; null: it was not measured.")
    override: Override | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it may not be deployed."""
        return not self.allowed and self.override is None


def decide(rule: DeployIf, found: Mapping[str, ModelComparison], confidence: float) -> Promotion:
    """Let an adapter pass or not; ``confidence`` is that of the intervals. What was not measured does not pass."""
    measure, comparison = rule.measure, found.get(rule.measure)
    if comparison is None:
        reason = f"The evaluation has no {measure}, so nothing shows what the adapter gains."
        return Promotion(rule=rule, allowed=False, reason=reason)
    if (least := comparison.least_gain) is None:
        reason = (
            f"The gain in {measure} is {comparison.gain:.4g} on {comparison.rows} rows, of which nobody can say how "
            "sure that is; hold out more rows."
        )
        return Promotion(rule=rule, allowed=False, reason=reason, comparison=comparison)
    reason = (
        f"The gain in {measure} is {comparison.gain:.4g} on {comparison.rows} held-out rows, with {confidence:g} "
        f"confidence at least {least:.4g}; at least {rule.min_gain:g} was asked for."
    )
    if comparison.differing == 0:
        reason = (
            f"No row differs in {measure}: on all {comparison.rows} held-out rows the adapter does as its base model "
            f"does, which shows no regression and no gain; at least {rule.min_gain:g} was asked for."
        )
    return Promotion(rule=rule, allowed=least >= rule.min_gain, reason=reason, comparison=comparison)
