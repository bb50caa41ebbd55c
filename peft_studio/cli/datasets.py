"""``peft-studio datasets``: rows to train on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, size, table
from peft_studio.cli.watching import transfer
from peft_studio.config import LongRows, ModelSource
from peft_studio.errors import InvalidConfig
from peft_studio.previews import DatasetPreview, Sample
from peft_studio.stored_datasets import Dataset

app = typer.Typer(help=SECTIONS["datasets"], no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(help="The data set's id.", metavar="DATASET")]
File = Annotated[Path, typer.Argument(help="A JSON, JSONL, CSV or Parquet file.", exists=True, dir_okay=False)]


@command(app, "upload")
def upload(
    session: Session,
    file: File,
    name: Annotated[str | None, typer.Option(help="Its name in the studio; by default the file's.")] = None,
    resume: Annotated[str | None, typer.Option(help="The id of an upload of this file that was cut off.")] = None,
) -> None:
    """Upload a data set; its rows are checked before it is there. Its id can be a job's dataset_path."""
    bar, report = transfer(session, file.name)
    with bar:
        made = session.client.upload_dataset(file, name=name, progress=report, upload_id=resume)
    session.show(made, lambda: made.dataset_id)


@command(app, "list")
def list_datasets(
    session: Session,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List data sets, newest first."""
    page = session.client.list_datasets(limit=limit, cursor=cursor)
    columns = ("id", "name", "rows", "format", "size", "created")
    session.show(page, lambda: table(columns, (_row(one) for one in page.datasets)))


@command(app, "show")
def show(session: Session, dataset_id: DatasetId) -> None:
    """Show a data set."""
    found = session.client.get_dataset(dataset_id)
    session.show(found, lambda: facts(found.model_dump()))


@command(app, "preview")
def preview(
    session: Session,
    dataset_id: DatasetId,
    base_model: Annotated[str, typer.Option(help="The base model whose tokens and chat template are used.")],
    model_source: Annotated[ModelSource | None, typer.Option(help="Where the base model comes from.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many rows.", min=1)] = 5,
    max_length: Annotated[int | None, typer.Option(help="Longest row, in tokens.")] = None,
    long_rows: Annotated[LongRows | None, typer.Option(help="What becomes of longer ones; else they are cut.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column of another name, as prompt=question.")] = None,
) -> None:
    """Show rows as the base model will see them; what it learns from is green."""
    seen = session.client.preview_dataset(
        dataset_id,
        base_model,
        model_source=model_source,
        limit=limit,
        max_length=max_length,
        columns=_columns(column or []),
        long_rows=long_rows,
    )
    session.show(seen, lambda: Group(*(_sample(one) for one in seen.samples), _summary(seen)))


@command(app, "delete")
def delete(session: Session, dataset_id: DatasetId) -> None:
    """Delete a data set; refused while a job that has not ended uses it."""
    gone = session.client.delete_dataset(dataset_id)
    session.show(gone, lambda: f"Deleted {dataset_id}.")


def _columns(written: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in written]
    if wrong := next((one for one, (_, equals, _) in zip(written, pairs, strict=True) if not equals), None):
        raise InvalidConfig(f"{wrong!r} names no column.", field="--column", issue="Must be like prompt=question")
    return {ours: theirs for ours, _, theirs in pairs}


def _row(one: Dataset) -> tuple[object, ...]:
    return one.dataset_id, one.name, one.rows, one.format, size(one.size_bytes), one.created_at


def _sample(sample: Sample) -> Text:
    shown = Text(f"row {sample.row}, {sample.supervised_tokens} of {len(sample.tokens)} tokens carry loss\n", "bold")
    for token in sample.tokens:
        shown.append(token.text, "green" if token.loss else "dim")
    return shown.append("\n")


def _summary(seen: DatasetPreview) -> Text:
    troubles = {
        "cut off": seen.truncated_rows,
        "left out": seen.dropped_rows,
        "split": seen.split_rows,
        "duplicates": len(seen.duplicate_rows),
        "without an answer": len(seen.empty_rows),
    }
    said = ", ".join(f"{count} rows {what}" for what, count in troubles.items() if count)
    share = f"{seen.supervised_share:.0%} of the tokens in {seen.examined_rows:,} rows carry loss"
    return Text(share + (f"; {said}" if said else ""))
