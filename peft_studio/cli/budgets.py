"""``peft-studio budgets``: what rented machines may cost in a month."""

from typing import Annotated

import typer
from pydantic import ValidationError

from peft_studio.answers import BudgetList
from peft_studio.budgets import Budget, Scope
from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import money, table
from peft_studio.errors import InvalidConfig, NotFound

app = typer.Typer(help=SECTIONS["budgets"], no_args_is_help=True)

Whose = Annotated[Scope, typer.Argument(help="Whose budget it is: an API key's or a project's.")]
Id = Annotated[str, typer.Argument(help="The key's id, or the project's name.", metavar="ID")]


@command(app, "list")
def list_budgets(session: Session) -> None:
    """List budgets, what of each is spent this month, and what jobs that have not ended hold."""
    _show(session, session.client.list_budgets())


@command(app, "set")
def set_budget(
    session: Session, scope: Whose, who: Id, monthly: Annotated[float, typer.Argument(help="US dollars a month.")]
) -> None:
    """Set one budget; the others stay."""
    try:
        budget = Budget(scope=scope, id=who, monthly_usd=monthly)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidConfig(f"{first['loc'][0]}: {first['msg']}.", field=first["loc"][0], issue=first["msg"]) from None
    _show(session, session.client.put_budgets([*_but(session, scope, who), budget]))


@command(app, "remove")
def remove_budget(session: Session, scope: Whose, who: Id) -> None:
    """Remove one budget: from then on there is no limit."""
    others = _but(session, scope, who)
    if len(others) == len(session.client.list_budgets().budgets):
        raise NotFound(f"There is no budget of the {scope} {who!r}; `peft-studio budgets list` shows all.")
    _show(session, session.client.put_budgets(others))


def _but(session: Session, scope: Scope, who: str) -> list[Budget]:
    known = session.client.list_budgets().budgets
    kept = [one for one in known if (one.scope, one.id) != (scope, who)]
    return [Budget(scope=one.scope, id=one.id, monthly_usd=one.monthly_usd) for one in kept]


def _show(session: Session, found: BudgetList) -> None:
    rows = [
        (one.scope, one.id, money(one.monthly_usd), money(one.spent_usd), money(one.held_usd)) for one in found.budgets
    ]
    session.show(found, lambda: table(("of", "id", "a month", "spent", "held"), rows))
