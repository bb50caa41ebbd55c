"""Envelopes of budgets."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.budgets import Budget, BudgetState


class PutBudgets(BaseModel):
    """All budgets there are to be."""

    model_config = ConfigDict(extra="forbid")

    budgets: list[Budget] = Field(max_length=1000, description="One that is left out is deleted.")


class BudgetList(BaseModel):
    """All budgets, and what of each is gone this month."""

    budgets: Sequence[BudgetState]
