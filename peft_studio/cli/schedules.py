"""``peft-studio schedules``: have jobs start again and again."""

from typing import Annotated, Any

import typer
from rich.table import Table

from peft_studio.cli import SECTIONS
from peft_studio.cli.job_file import read_job, with_changes
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, table
from peft_studio.schedules import Overlap, Schedule

app = typer.Typer(help=SECTIONS["schedules"], no_args_is_help=True)

ScheduleId = Annotated[str, typer.Argument(help="The schedule's id.", metavar="SCHEDULE")]
JobFile = Annotated[str, typer.Argument(help="A YAML or JSON file with the job's configuration; - reads stdin.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field of the job: rank=4.")]


@command(app, "create")
def create(
    session: Session,
    file: JobFile,
    cron: Annotated[str, typer.Option(help="When: '0 3 * * *' is every night at three.")],
    timezone: Annotated[str, typer.Option(help="The time zone of that, like Europe/Berlin.")] = "UTC",
    overlap: Annotated[
        Overlap, typer.Option(help="Whether a run skips its turn while a job is at work.")
    ] = Overlap.SKIP,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    changes: Set = None,
) -> None:
    """Make a schedule of a job."""
    wanted: dict[str, Any] = {"config": read_job(file, changes or []), "cron": cron, "timezone": timezone}
    made = session.client.create_schedule(wanted | {"overlap": overlap} | ({"name": name} if name else {}))
    session.show(made, lambda: made.schedule_id)
    if not session.as_json and made.next_runs:
        session.aside.print(f"It runs next at {made.next_runs[0]:%Y-%m-%d %H:%M %Z}")


@command(app, "list")
def list_schedules(session: Session) -> None:
    """List schedules, oldest first."""
    found = session.client.list_schedules()
    session.show(found, lambda: _table(found))


@command(app, "show")
def show(session: Session, schedule_id: ScheduleId) -> None:
    """Show a schedule: when it runs next, and what became of its last runs."""
    _show(session, session.client.get_schedule(schedule_id))


@command(app, "change")
def change(
    session: Session,
    schedule_id: ScheduleId,
    file: Annotated[str | None, typer.Option(help="A file with another job configuration.")] = None,
    cron: Annotated[str | None, typer.Option(help="Another time.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Another time zone.")] = None,
    overlap: Annotated[Overlap | None, typer.Option(help="Whether a run skips its turn.")] = None,
    changes: Set = None,
) -> None:
    """Change a schedule; what is not given stays. With --set alone, its own configuration is changed."""
    given: dict[str, Any] = {"cron": cron, "timezone": timezone, "overlap": overlap}
    given = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        given["config"] = read_job(file, changes or [])
    elif changes:
        own = session.client.get_schedule(schedule_id).config.model_dump(mode="json", exclude_unset=True)
        given["config"] = with_changes(own, changes)
    _show(session, session.client.change_schedule(schedule_id, given))


@command(app, "pause")
def pause(session: Session, schedule_id: ScheduleId) -> None:
    """Have a schedule not run until it is resumed."""
    _show(session, session.client.pause_schedule(schedule_id))


@command(app, "resume")
def resume(session: Session, schedule_id: ScheduleId) -> None:
    """Have a schedule run again; this key's budget pays from then on."""
    _show(session, session.client.resume_schedule(schedule_id))


@command(app, "delete")
def delete(session: Session, schedule_id: ScheduleId) -> None:
    """Forget a schedule; jobs that it has started go on."""
    deleted = session.client.delete_schedule(schedule_id)
    session.show(deleted, lambda: f"Deleted {schedule_id}")


def _show(session: Session, schedule: Schedule) -> None:
    session.show(schedule, lambda: _facts(schedule))


def _table(found: list[Schedule]) -> Table:
    columns = ("id", "name", "active", "cron", "time zone", "next run")
    rows = [
        (one.schedule_id, one.name, one.active, one.cron, one.timezone, next(iter(one.next_runs), None))
        for one in found
    ]
    return table(columns, rows)


def _facts(one: Schedule) -> Table:
    runs = [f"{run.scheduled_at:%Y-%m-%d %H:%M} {run.status} {run.job_id or run.reason or ''}" for run in one.last_runs]
    told: dict[str, object] = {
        "id": one.schedule_id,
        "name": one.name,
        "active": one.active,
        "cron": f"{one.cron} ({one.timezone})",
        "overlap": one.overlap,
        "base model": one.config.base_model,
        "data set": one.config.dataset_path,
        "next runs": [f"{time:%Y-%m-%d %H:%M %Z}" for time in one.next_runs],
        "last runs": runs,
    }
    return facts(told)
