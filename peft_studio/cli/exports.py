"""``peft-studio exports``: adapters made into what others load."""

from pathlib import Path
from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, size, table, text
from peft_studio.cli.watching import transfer
from peft_studio.exports import Export, ExportFormat, GgufType, Weights

app = typer.Typer(help=SECTIONS["exports"], no_args_is_help=True)

ExportId = Annotated[str, typer.Argument(help="The export's id.", metavar="EXPORT")]


@command(app, "create")
def create(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(help="The adapter's id.", metavar="ADAPTER")],
    into: Annotated[ExportFormat, typer.Argument(help="What it is made into.", metavar="FORMAT")],
    name: Annotated[str | None, typer.Option(help="What the model is called.")] = None,
    weights: Annotated[Weights | None, typer.Option(help="Of merged: the number format.")] = None,
    gguf_type: Annotated[GgufType | None, typer.Option("--type", help="Of gguf and ollama: the number format.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of lora: the rank of what is approximated.")] = None,
    create_model: Annotated[
        bool | None, typer.Option("--create/--no-create", help="Of ollama: have the daemon create the model.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A key of your own: with it, the same export again gives the first one.")
    ] = None,
) -> None:
    """Export an adapter: as merged weights, a GGUF file, an Ollama model or a plain LoRA."""
    given = {"name": name, "weights": weights, "gguf_type": gguf_type, "rank": rank, "create": create_model}
    wanted = {"format": into, **{field: value for field, value in given.items() if value is not None}}
    made = session.client.create_export(adapter_id, wanted, idempotency_key=idempotency_key)
    session.show(made, lambda: made.export_id)


@command(app, "list")
def list_exports(
    session: Session,
    adapter_id: Annotated[str | None, typer.Option("--adapter", help="Only those of this adapter.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List exports, newest first."""
    page = session.client.list_exports(adapter_id=adapter_id, status=status, limit=limit, cursor=cursor)
    columns = ("id", "adapter", "format", "status", "step", "size", "created")
    session.show(page, lambda: table(columns, (_row(one) for one in page.exports)))


@command(app, "show")
def show(session: Session, export_id: ExportId) -> None:
    """Show an export: how far it is, and what came of it."""
    found = session.client.get_export(export_id)
    told = found.model_dump(mode="json", exclude={"config", "result"}) | found.config.model_dump(mode="json")
    session.show(found, lambda: facts(told))
    if found.result and not session.as_json:
        for file in found.result.files:
            session.aside.print(f"{file.name}: {size(file.size_bytes)}, sha256 {file.sha256}")
        for note in found.result.notes:
            session.aside.print(note)


@command(app, "download")
def download(
    session: Session,
    export_id: ExportId,
    to: Annotated[Path | None, typer.Option("--to", help="Where to save it; by default EXPORT.zip, here.")] = None,
    file: Annotated[str | None, typer.Option(help="Only this file of it.")] = None,
) -> None:
    """Save an export as a zip of its files, or one of them."""
    target = to or Path(file or f"{export_id}.zip")
    bar, report = transfer(session, target.name)
    with bar:
        session.client.download_export(export_id, target, file=file, progress=report)
    if not session.as_json:
        session.console.print(str(target), markup=False, soft_wrap=True)


@command(app, "cancel")
def cancel(session: Session, export_id: ExportId) -> None:
    """Stop an export."""
    stopped = session.client.cancel_export(export_id)
    session.show(stopped, lambda: f"{stopped.export_id} {text(stopped.status)}")


@command(app, "delete")
def delete(session: Session, export_id: ExportId) -> None:
    """Delete an export that has ended; the adapter is kept."""
    gone = session.client.delete_export(export_id)
    session.show(gone, lambda: f"Deleted {export_id}.")


def _row(one: Export) -> tuple[object, ...]:
    made = size(one.result.size_bytes) if one.result else None
    return one.export_id, one.adapter_id, one.config.format, one.status, one.step, made, one.created_at
