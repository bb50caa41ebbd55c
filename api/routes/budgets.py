"""Budgets: what rented machines may cost in a month, by API key and by project."""

from typing import Annotated

from litestar import get, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, SkipValidation

from api import resource_examples as examples
from api.auth import needs
from api.budget_wire import BudgetList, PutBudgets
from api.dependencies import Keys
from api.openapi import documented
from infra.budgets import Budgets
from peft_studio.budgets import Scope
from peft_studio.errors import InvalidConfig

TheBudgets = NamedDependency[SkipValidation[Budgets]]
TheKeys = NamedDependency[SkipValidation[Keys]]


@get("/budgets", summary="List budgets", responses=documented(BudgetList, examples.BUDGETS))
async def list_budgets(budgets: TheBudgets) -> BudgetList:
    """
    Return all monthly budgets: what of each is spent this calendar month (UTC), and what live jobs hold.

    A machine counts in the month in which it was rented.
    """
    return BudgetList(budgets=await budgets.list())


@put(
    "/budgets",
    summary="Set budgets",
    opt=needs("admin"),
    responses=documented(BudgetList, examples.BUDGETS, 403, 413, 415),
)
async def put_budgets(
    data: Annotated[PutBudgets, Body(examples=[Example(value=examples.PUT_BUDGETS)])],
    budgets: TheBudgets,
    keys: TheKeys,
) -> BudgetList:
    """Have these budgets and no others. Jobs that run already go on; their holds count."""
    known = {key.id for key in await keys.list()}
    for place, budget in enumerate(data.budgets):
        if budget.scope is Scope.KEY and budget.id not in known:
            issue = "There is no such API key; GET /keys lists the ids"
            raise InvalidConfig(f"budgets.{place}.id: {issue}", field=f"budgets.{place}.id", issue=issue)
        if any((one.scope, one.id) == (budget.scope, budget.id) for one in data.budgets[:place]):
            issue = "The same key or project is there twice"
            raise InvalidConfig(f"budgets.{place}.id: {issue}", field=f"budgets.{place}.id", issue=issue)
    await budgets.put(data.budgets)
    return BudgetList(budgets=await budgets.list())


ROUTES = [list_budgets, put_budgets]
