"""Budgets: what rented machines may cost in a calendar month, by API key or by project."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Scope(StrEnum):
    """Whose money a budget is."""

    KEY = "key"
    PROJECT = "project"


class Budget(BaseModel):
    """A limit in US dollars for each calendar month (UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Scope
    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")] = Field(
        description="The API key's id, or the project's name."
    )
    monthly_usd: float = Field(gt=0, le=1e9, allow_inf_nan=False)


class BudgetState(BaseModel):
    """A budget, and what of it is gone this month."""

    scope: Scope
    id: str
    monthly_usd: float
    spent_usd: float = Field(description="What machines that were rented this month have cost so far.")
    held_usd: float = Field(description="What jobs that have not ended may still cost.")
