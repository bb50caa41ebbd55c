"""A base model and an adapter by one measure, on the same rows, and how sure the difference is."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Measure(StrEnum):
    """What is measured on held-out rows; ``docs/evaluation.md`` defines each."""

    LOSS = "loss"
    PERPLEXITY = "perplexity"
    ACCURACY = "accuracy"
    EXACT_MATCH = "exact_match"
    ROUGE1 = "rouge1"
    ROUGE2 = "rouge2"
    ROUGE_L = "rougeL"
    CHRF = "chrf"

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which way is the better one."""
        return "lower" if self in (Measure.LOSS, Measure.PERPLEXITY) else "higher"


OF_ROWS = (Measure.LOSS, Measure.PERPLEXITY, Measure.ACCURACY)
GENERATED = (Measure.EXACT_MATCH, Measure.ROUGE1, Measure.ROUGE2, Measure.ROUGE_L, Measure.CHRF)


class ModelComparison(BaseModel):
    """Both models by one measure, and the interval in which the true ``difference`` (adapter less base) lies."""

    model_config = ConfigDict(frozen=True)

    base: float
    adapter: float
    difference: float
    low: float | None = Field(default=None, description="Null where there are too few rows, or no values row by row.")
    high: float | None = None
    rows: int = Field(description="Rows that it rests on, the same for both.")
    differing: int | None = Field(
        default=None, description="Of these, rows on which the two differ; null where there are no values row by row."
    )
    better: Literal["lower", "higher"]

    @property
    def gain(self) -> float:
        """By how much the adapter is better; negative where it is worse."""
        return self.difference if self.better == "higher" else -self.difference

    @property
    def least_gain(self) -> float | None:
        """The gain at that end of the interval where it is least; None where there is no interval."""
        return self.low if self.better == "higher" or self.high is None else -self.high


class Generation(BaseModel):
    """How answers were written: greedily, to the first of the rows that ask for one."""

    model_config = ConfigDict(frozen=True)

    rows: int
    max_new_tokens: int = Field(description="An answer is cut there.")
    cut: int = Field(description="Right answers that are longer than that, and so cannot be met.")


class Bootstrap(BaseModel):
    """How intervals are found: a percentile bootstrap over rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: int = Field(default=2000, ge=200, le=20_000, description="Rows are drawn anew so often.")
    confidence: float = Field(
        default=0.95, ge=0.5, le=0.999, description="How sure an interval is to hold the true difference."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class EvaluationConfig(BaseModel):
    """How a finished adapter is measured, beside its base model, on the held-out rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation_rows: int = Field(
        default=32, ge=0, le=10_000, description="Held-out rows that both models answer; 0: none."
    )
    max_new_tokens: int = Field(default=128, ge=1, le=4096, description="Tokens that an answer may have.")
    bootstrap: Bootstrap = Bootstrap()
