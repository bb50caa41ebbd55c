"""``peft-studio jobs``: submit, watch and control training jobs."""

from typing import Annotated

import typer
from rich.table import Table

from peft_studio.answers import JobChanged, JobCreated
from peft_studio.cli import SECTIONS
from peft_studio.cli.job_file import read_job, with_changes
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, money, size, table, text
from peft_studio.cli.watching import watch
from peft_studio.jobs import Conversion, Job, JobStatus
from peft_studio.plan import Estimate, PlannedOffer

app = typer.Typer(help=SECTIONS["jobs"], no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
JobFile = Annotated[
    str, typer.Argument(help="A YAML or JSON file with the job's configuration; - reads it from stdin.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field: rank=4, deploy.platform=local.")]
Follow = Annotated[bool, typer.Option("--follow", help="Watch the job until its end, and end with its code.")]
Key = Annotated[
    str | None, typer.Option(help="A key of your own: with it, submitting the same job again gives the first one.")
]


@command(app, "submit")
def submit(
    session: Session, file: JobFile, changes: Set = None, follow: Follow = False, idempotency_key: Key = None
) -> None:
    """Submit a job. With --json and --follow: one line of JSON for the job, then one for each event."""
    config = read_job(file, changes or [])
    _submitted(session, session.client.create_job(config, idempotency_key=idempotency_key), follow)


@command(app, "clone")
def clone(session: Session, job_id: JobId, changes: Set = None, follow: Follow = False) -> None:
    """Submit a job like another one, with some fields changed."""
    _submitted(session, session.client.clone_job(job_id, with_changes({}, changes or [])), follow)


def _submitted(session: Session, job: JobCreated, follow: bool) -> None:
    if follow and session.as_json:
        session.line(job)
    elif follow:
        session.aside.print(f"{job.job_id}: expected to take {_minutes(job.estimated_duration_minutes)}")
    else:
        session.show(job, lambda: job.job_id)
    if follow:
        watch(session, job.job_id)


@command(app, "reproduce")
def reproduce(session: Session, job_id: JobId, follow: Follow = False) -> None:
    """Train a job's adapter again from its lineage, on the very base model and data."""
    _submitted(session, session.client.reproduce_job(job_id), follow)


@command(app, "plan")
def plan(session: Session, file: JobFile, changes: Set = None) -> None:
    """Check a job and estimate what it takes; nothing is created."""
    found = session.client.plan_job(read_job(file, changes or []))
    told = {
        "base model": f"{found.model.id} ({found.model.architecture}, {found.model.parameters:,} parameters)",
        "data set": f"{found.dataset.path} ({found.dataset.rows:,} rows, {found.dataset.format})",
        "steps": found.total_steps,
        "cost": money(found.estimated_cost),
        "duration": _minutes(found.estimated_duration_minutes),
        **({"between": _between(found.estimate)} if found.estimate else {}),
        **{f"best offer {place}": _offer(one) for place, one in enumerate(found.offers, 1)},
        "trained before": found.reused_from,
    }
    session.show(found, lambda: facts(told))


@command(app, "list")
def list_jobs(
    session: Session,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs in this state.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only jobs on this provider's machines.")] = None,
    project: Annotated[str | None, typer.Option(help="Only jobs of this project.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List jobs, newest first."""
    page = session.client.list_jobs(status=status, provider=provider, project=project, limit=limit, cursor=cursor)
    session.show(page, lambda: _table(page.jobs))
    if page.next_cursor and not session.as_json:
        session.aside.print(f"{page.total} in all; further: --cursor {page.next_cursor}")


@command(app, "show")
def show(session: Session, job_id: JobId) -> None:
    """Show a job: how far it is, what it has made, what the adapter is worth."""
    job = session.client.get_job(job_id)
    session.show(job, lambda: _facts(job))


@command(app, "follow")
def follow(
    session: Session,
    job_id: JobId,
    after: Annotated[str | None, typer.Option(help="The cursor of an event: go on behind it.")] = None,
) -> None:
    """Watch a job until its end; 0 completed, 3 failed, 4 cancelled. Ctrl-C leaves the job running."""
    watch(session, job_id, after)


@command(app, "logs")
def logs(
    session: Session, job_id: JobId, lines: Annotated[int, typer.Option(help="At most so many lines.", min=1)] = 100
) -> None:
    """Print the newest lines of a job's log."""
    found = session.client.get_logs(job_id, lines)
    rows = [(f"{line.timestamp.astimezone():%H:%M:%S}", line.level, line.message) for line in found]
    session.show(found, lambda: table(("time", "level", "message"), rows))


@command(app, "metrics")
def metrics(
    session: Session, job_id: JobId, after_step: Annotated[int | None, typer.Option(help="Only later steps.")] = None
) -> None:
    """Print every number that a job has reported."""
    found = session.client.get_metrics(job_id, after_step=after_step)
    columns = list(dict.fromkeys(name for point in found.metrics for name in point if name != "timestamp"))
    session.show(found, lambda: table(columns, ([point.get(name) for name in columns] for point in found.metrics)))


@command(app, "checkpoints")
def checkpoints(session: Session, job_id: JobId) -> None:
    """List a job's checkpoints, oldest first."""
    found = session.client.list_checkpoints(job_id)
    rows = [(one.step, one.epoch, one.loss, size(one.size_bytes), one.created_at, one.path) for one in found]
    session.show(found, lambda: table(("step", "epoch", "loss", "size", "saved", "path"), rows))


@command(app, "checkpoint")
def checkpoint(session: Session, job_id: JobId) -> None:
    """Have a running job save a checkpoint now; it goes on training."""
    saved = session.client.save_checkpoint(job_id)
    session.show(saved, lambda: f"Saved step {saved.checkpoint.step}: {saved.checkpoint.path}")


@command(app, "cancel")
def cancel(session: Session, job_id: JobId) -> None:
    """Stop a job; its last checkpoint is kept."""
    _changed(session, session.client.cancel_job(job_id))


@command(app, "retry")
def retry(
    session: Session,
    job_id: JobId,
    max_cost: Annotated[float | None, typer.Option(help="US dollars that it may cost in all.")] = None,
    max_duration: Annotated[float | None, typer.Option(help="Minutes that it may have machines in all.")] = None,
) -> None:
    """Let a failed or cancelled job go on from its last checkpoint."""
    _changed(session, session.client.retry_job(job_id, max_cost=max_cost, max_duration=max_duration))


@command(app, "pause")
def pause(session: Session, job_id: JobId) -> None:
    """Save a checkpoint and give the job's machine back, until it is resumed."""
    _changed(session, session.client.pause_job(job_id))


@command(app, "resume")
def resume(session: Session, job_id: JobId) -> None:
    """Let a paused job go on from its last checkpoint."""
    _changed(session, session.client.resume_job(job_id))


def _changed(session: Session, job: JobChanged) -> None:
    phase = f" ({job.phase})" if job.phase else ""
    session.show(job, lambda: f"{job.job_id} {text(job.status)}{phase}")


def _table(jobs: list[Job]) -> Table:
    columns = ("id", "status", "phase", "progress", "loss", "base model", "project", "created")
    return table(columns, (_row(job) for job in jobs))


def _row(job: Job) -> tuple[object, ...]:
    loss = job.metrics.get("loss", job.metrics.get("final_loss"))
    model, project = job.config.base_model, job.config.project_name
    return job.job_id, job.status, job.phase, f"{job.progress:.0%}", loss, model, project, job.created_at


def _facts(job: Job) -> Table:
    told: dict[str, object] = {
        "id": job.job_id,
        "status": job.status,
        "phase": job.phase,
        "progress": f"{job.progress:.0%}",
        "base model": job.config.base_model,
        "data set": job.config.dataset_path,
        "algorithm": job.config.algorithm,
        "created": job.created_at,
        "started": job.started_at,
        "completed": job.completed_at,
        "cost": money(job.cost),
        "metrics": [f"{name} {text(value)}" for name, value in job.metrics.items()],
        "reused from": job.reused_from,
        "adapter": job.artifact.path if job.artifact else None,
        "endpoint": job.endpoint,
        **({f"for {job.conversion.target}": _converted(job.conversion)} if job.conversion else {}),
        "error": (job.error or {}).get("message"),
    }
    if (worth := job.evaluation) and worth.base and worth.adapter:
        for name in ("perplexity", "accuracy"):
            before, after = getattr(worth.base, name), getattr(worth.adapter, name)
            if before is not None and after is not None:
                told[name] = f"{before:.3f} before, {after:.3f} after"
    return facts(told)


def _converted(made: Conversion) -> str:
    return " ".join(text for text in (made.export_id, f"({made.status})", made.error) if text)


def _between(expected: Estimate) -> str:
    cost, minutes = expected.cost, expected.minutes
    sure = f"as {expected.measured_jobs} finished jobs show" if expected.measured_jobs else "by rated speed alone"
    return f"${cost.low:.2f} and ${cost.high:.2f}, {minutes.low:.0f} and {minutes.high:.0f} min, {sure}"


def _offer(one: PlannedOffer) -> str:
    whole = f"${one.estimate.cost.expected:.2f} to finish" if one.estimate else "unknown speed"
    return f"{one.resource_id} at {one.provider}: {whole}, ${one.hourly_rate:g} an hour"


def _minutes(minutes: float | None) -> str:
    return "an unknown time" if minutes is None else f"{minutes:.1f} minutes"
