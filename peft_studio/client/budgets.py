"""What rented machines may cost in a month."""

from collections.abc import Sequence

from peft_studio.answers import BudgetList
from peft_studio.budgets import Budget
from peft_studio.client.calls import Call, model, operation


class BudgetOperations:
    """Look at budgets, and set them (with a key of the role admin)."""

    @operation
    def list_budgets(self) -> Call[BudgetList]:
        """Return all monthly budgets: what of each is spent this month, and what live jobs hold."""
        return Call("GET", "/budgets", model(BudgetList))

    @operation
    def put_budgets(self, budgets: Sequence[Budget]) -> Call[BudgetList]:
        """Have these budgets, and no others."""
        body = {"budgets": [budget.model_dump(mode="json") for budget in budgets]}
        return Call("PUT", "/budgets", model(BudgetList), json=body)
