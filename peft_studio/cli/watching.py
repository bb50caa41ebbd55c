"""Following a job on the terminal: a bar for people, a line of JSON for each event for scripts."""

from collections.abc import Iterable

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from peft_studio.cli.exits import INTERRUPTED, JOB_CANCELLED, JOB_FAILED
from peft_studio.cli.session import Session
from peft_studio.client.bodies import Progress as Report
from peft_studio.events import Event, Failure, Log, Metrics, Status
from peft_studio.jobs import JobStatus

_CODES = {JobStatus.FAILED: JOB_FAILED, JobStatus.CANCELLED: JOB_CANCELLED}


def watch(session: Session, job_id: str, after: str | None = None) -> None:
    """Show a job at work until its end, and end with the code of its final status."""
    events = session.client.follow(job_id, after)
    try:
        last = _lines(session, events) if session.as_json else show_work(events, session.aside)
    except KeyboardInterrupt:
        session.aside.print(f"No longer watching. The job goes on: peft-studio jobs follow {job_id}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        events.close()
    if last is not None and (code := _CODES.get(last.status)):
        raise typer.Exit(code)


def _lines(session: Session, events: Iterable[Event]) -> Status | None:
    last = None
    for event in events:
        session.line(event)
        last = event if isinstance(event, Status) else last
    return last


def show_work(events: Iterable[Event], console: Console) -> Status | None:
    """Show a job at work as a bar with the loss; return its last status."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    last = None
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("waiting", total=None, loss="")
        for event in events:
            match event:
                case Status(status=status, phase=phase):
                    last = event
                    progress.update(bar, description=f"{status if status.is_final else phase or status}")
                case Metrics(metrics={"loss": loss, "step": step, "total_steps": total}):
                    progress.update(bar, completed=step, total=total, loss=f"loss {loss:.4f}")
                case Failure(error=error, details=details):
                    progress.console.print(f"[red]{escape(error)}[/] {escape(details)}")
                case Log(level="WARNING" | "ERROR" as level, message=message):
                    progress.console.print(f"{level}: {escape(message)}")
                case _:
                    pass
    return last


def transfer(session: Session, name: str) -> tuple[Progress, Report]:
    """Return a bar for a file on its way, and what is to be told how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=session.aside, disable=session.as_json)
    bar = progress.add_task(escape(name), total=None)
    return progress, lambda done, total: progress.update(bar, completed=done, total=total)
