"""``peft-studio evaluations``: adapters measured beside their base models."""

from typing import Annotated, Any

import typer
from rich.table import Table

from peft_studio.cli import SECTIONS
from peft_studio.cli.job_file import with_changes
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, table, text
from peft_studio.evaluation.comparison import Measure
from peft_studio.evaluations import AdapterEvaluation, EvaluationResult, Judged

app = typer.Typer(help=SECTIONS["evaluations"], no_args_is_help=True)

EvaluationId = Annotated[str, typer.Argument(help="The evaluation's id.", metavar="EVALUATION")]


@command(app, "create")
def create(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(help="The adapter's id.", metavar="ADAPTER")],
    dataset: Annotated[
        str | None, typer.Option(help="A file there, or a data set's id; by default the rows that its job held out.")
    ] = None,
    measures: Annotated[
        list[Measure] | None, typer.Option("--measure", help="Only this; may be given again. By default all.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="A model that compares the written answers.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="Where it is; by default the studio's own judge.")] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="A task of lm-evaluation-harness; may be given again.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field: rows=200, bootstrap.confidence=0.99.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A key of your own: with it, the same evaluation again gives the first one.")
    ] = None,
) -> None:
    """Measure an adapter beside its base model."""
    given: dict[str, Any] = {"adapter_id": adapter_id, "dataset": dataset, "measures": measures}
    if judge or judge_url:
        given["judge"] = {name: value for name, value in (("model", judge), ("url", judge_url)) if value}
    if tasks:
        given["lm_eval"] = {"tasks": tasks}
    wanted = with_changes({name: value for name, value in given.items() if value}, changes or [])
    made = session.client.create_evaluation(wanted, idempotency_key=idempotency_key)
    session.show(made, lambda: made.evaluation_id)


@command(app, "list")
def list_evaluations(
    session: Session,
    adapter_id: Annotated[str | None, typer.Option("--adapter", help="Only those of this adapter.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List evaluations, newest first."""
    page = session.client.list_evaluations(adapter_id=adapter_id, status=status, limit=limit, cursor=cursor)
    columns = ("id", "adapter", "status", "step", "data set", "created")
    session.show(page, lambda: table(columns, (_row(one) for one in page.evaluations)))


@command(app, "show")
def show(session: Session, evaluation_id: EvaluationId) -> None:
    """Show an evaluation: how far it is, or both models by each measure."""
    found = session.client.get_evaluation(evaluation_id)
    result = found.result
    if result is None:
        session.show(found, lambda: facts(found.model_dump(exclude={"config"})))
        return
    session.show(found, lambda: _figures(result))
    if not session.as_json:
        for line in (*([_verdict(result.judge)] if result.judge else []), *result.notes):
            session.aside.print(line, markup=False)


@command(app, "cancel")
def cancel(session: Session, evaluation_id: EvaluationId) -> None:
    """Stop an evaluation."""
    stopped = session.client.cancel_evaluation(evaluation_id)
    session.show(stopped, lambda: f"{stopped.evaluation_id} {text(stopped.status)}")


@command(app, "delete")
def delete(session: Session, evaluation_id: EvaluationId) -> None:
    """Delete an evaluation that has ended; the adapter is kept."""
    gone = session.client.delete_evaluation(evaluation_id)
    session.show(gone, lambda: f"Deleted {evaluation_id}.")


def _row(one: AdapterEvaluation) -> tuple[object, ...]:
    dataset = one.config.dataset or "held out"
    return one.evaluation_id, one.adapter_id, one.status, one.step, dataset, one.created_at


def _figures(result: EvaluationResult) -> Table:
    columns = ("measure", "base", "adapter", "difference", "low", "high", "rows", "differing")
    compared = result.evaluation.comparison | result.lm_eval
    return table(columns, ((name, *(getattr(one, field) for field in columns[1:])) for name, one in compared.items()))


def _verdict(judged: Judged) -> str:
    rate, low, high = (text(figure) for figure in (judged.win_rate, judged.low, judged.high))
    return f"{judged.model} prefers the adapter's answers in {rate} of {judged.rows} rows ({low} to {high})."
