"""``peft-studio deployments``: adapters behind endpoints."""

from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.job_file import with_changes
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, table

app = typer.Typer(help=SECTIONS["deployments"], no_args_is_help=True)

DeploymentId = Annotated[str, typer.Argument(help="The deployment's id.", metavar="DEPLOYMENT")]


@command(app, "create")
def create(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(help="The adapter to serve.", metavar="ADAPTER")],
    platform: Annotated[str, typer.Option(help="Where it is served.")] = "local",
    changes: Annotated[list[str] | None, typer.Option("--set", help="A field of its config: min_replicas=1.")] = None,
) -> None:
    """Put an adapter behind an endpoint."""
    made = session.client.create_deployment(adapter_id, platform, with_changes({}, changes or []))
    session.show(made, lambda: made.deployment_id)


@command(app, "list")
def list_deployments(
    session: Session,
    status: Annotated[str | None, typer.Option(help="Only deployments in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List deployments, newest first."""
    page = session.client.list_deployments(status=status, limit=limit, cursor=cursor)
    rows = [(one.deployment_id, one.status, one.platform, one.adapter_id, one.endpoint) for one in page.deployments]
    session.show(page, lambda: table(("id", "status", "platform", "adapter", "endpoint"), rows))


@command(app, "show")
def show(session: Session, deployment_id: DeploymentId) -> None:
    """Show a deployment."""
    found = session.client.get_deployment(deployment_id)
    session.show(found, lambda: facts(found.model_dump(exclude={"metrics", "config"}) | dict(found.metrics)))


@command(app, "test")
def test(
    session: Session,
    deployment_id: DeploymentId,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is always the likeliest answer.", min=0)] = None,
) -> None:
    """Have a deployment answer a prompt."""
    answer = session.client.test_deployment(deployment_id, prompt, max_tokens=max_tokens, temperature=temperature)
    told = {"answer": answer.response, "tokens": answer.tokens_generated, "milliseconds": answer.latency_ms}
    session.show(answer, lambda: facts(told))


@command(app, "renew")
def renew(
    session: Session,
    deployment_id: DeploymentId,
    hours: Annotated[float | None, typer.Option(help="From now; by default as long as at first.", min=0)] = None,
) -> None:
    """Have a deployment served for longer."""
    renewed = session.client.renew_deployment(deployment_id, hours)
    session.show(renewed, lambda: str(renewed.expires_at))


@command(app, "delete")
def delete(
    session: Session,
    deployment_id: DeploymentId,
    force: Annotated[
        bool, typer.Option("--force", help="Forget one that cannot be taken off: see to it at its platform.")
    ] = False,
) -> None:
    """Stop serving; the adapter is kept."""
    gone = session.client.delete_deployment(deployment_id, force=force)
    session.show(gone, lambda: f"Deleted {deployment_id}.")
