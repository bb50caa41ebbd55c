"""``peft-studio adapters``: what jobs have made, and what was made elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from peft_studio.adapters import Adapter
from peft_studio.cli import SECTIONS
from peft_studio.cli.job_file import read_yaml
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, size, table
from peft_studio.cli.watching import transfer
from peft_studio.errors import InvalidConfig

app = typer.Typer(help=SECTIONS["adapters"], no_args_is_help=True)

AdapterId = Annotated[str, typer.Argument(help="The adapter's id.", metavar="ADAPTER")]
_EXISTING = typer.Argument(help="Its weights, a safetensors file.", exists=True, dir_okay=False)


@command(app, "list")
def list_adapters(
    session: Session,
    job_id: Annotated[str | None, typer.Option("--job", help="Only what this job has made.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List adapters, newest first."""
    page = session.client.list_adapters(job_id=job_id, limit=limit, cursor=cursor)
    columns = ("id", "name", "base model", "algorithm", "rank", "size", "created")
    session.show(page, lambda: table(columns, (_row(one) for one in page.adapters)))


@command(app, "show")
def show(session: Session, adapter_id: AdapterId) -> None:
    """Show an adapter."""
    found = session.client.get_adapter(adapter_id)
    told = found.model_dump(exclude={"metadata", "lineage", "registries"}) | found.metadata.model_dump()
    told |= {one.registry.place: one.url or one.error or one.status for one in found.registries}
    session.show(found, lambda: facts(told))


@command(app, "upload")
def upload(
    session: Session,
    file: Annotated[Path, _EXISTING],
    metadata: Annotated[str, typer.Option(help="What is known of it, as YAML or JSON: 'base_model: org/model'.")],
    config: Annotated[Path | None, typer.Option(help="Its adapter_config.json.", exists=True, dir_okay=False)] = None,
) -> None:
    """Upload an adapter that was made elsewhere."""
    bar, report = transfer(session, file.name)
    with bar:
        made = session.client.upload_adapter(file, _mapping(metadata), config=config, progress=report)
    session.show(made, lambda: made.adapter_id)


@command(app, "download")
def download(
    session: Session,
    adapter_id: AdapterId,
    to: Annotated[Path | None, typer.Option("--to", help="Where to save it; by default ADAPTER.zip, here.")] = None,
    file: Annotated[str | None, typer.Option(help="Only this file of it, as adapter_model.safetensors.")] = None,
) -> None:
    """Save an adapter as a zip of its folder, in PEFT's layout, or one file of it."""
    target = to or Path(file or f"{adapter_id}.zip")
    bar, report = transfer(session, target.name)
    with bar:
        session.client.download_adapter(adapter_id, target, file=file, progress=report)
    if not session.as_json:
        session.console.print(str(target), markup=False, soft_wrap=True)


@command(app, "publish")
def publish(
    session: Session,
    adapter_id: AdapterId,
    to: Annotated[list[str], typer.Argument(help="OWNER/NAME on the Hugging Face Hub, or s3://BUCKET/PREFIX.")],
    public: Annotated[bool, typer.Option(help="Let everybody see it on the Hub.")] = False,
) -> None:
    """Publish an adapter; `show` tells what came of it."""
    registries = [
        {"kind": "s3", "url": place}
        if place.startswith("s3://")
        else {"kind": "huggingface", "repository": place, "private": not public}
        for place in to
    ]
    asked = session.client.publish_adapter(adapter_id, registries)
    columns = ("registry", "status", "url")
    rows = [(one.registry.place, one.status, one.url) for one in asked.registries]
    session.show(asked, lambda: table(columns, rows))


@command(app, "delete")
def delete(session: Session, adapter_id: AdapterId) -> None:
    """Delete an adapter; refused while it is deployed."""
    gone = session.client.delete_adapter(adapter_id)
    session.show(gone, lambda: f"Deleted {adapter_id}.")


def _row(one: Adapter) -> tuple[object, ...]:
    return one.id, one.name, one.base_model, one.algorithm, one.metadata.rank, size(one.size_bytes), one.created_at


def _mapping(written: str) -> dict[str, Any]:
    try:
        metadata: Any = read_yaml(written)
    except yaml.YAMLError:
        metadata = None
    if not isinstance(metadata, dict):
        raise InvalidConfig("The metadata must be names and values.", field="--metadata", issue="Must be a mapping")
    return metadata
