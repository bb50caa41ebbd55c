"""Answers about budgets."""

from peft_studio.answers.answer import Answer
from peft_studio.budgets import BudgetState


class BudgetList(Answer):
    """All monthly budgets, and what of each is gone this month."""

    budgets: list[BudgetState]
