"""``peft-studio models``: base models to train on."""

from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import facts, table
from peft_studio.config import ModelSource

app = typer.Typer(help=SECTIONS["models"], no_args_is_help=True)

Source = Annotated[ModelSource | None, typer.Option(help="Only this source; by default all.")]


@command(app, "search")
def search(
    session: Session,
    query: Annotated[str, typer.Argument(help="Words of the name; by default any.")] = "",
    source: Source = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
) -> None:
    """Search base models."""
    found = session.client.search_models(query, source=source, limit=limit)
    rows = [(one.id, one.source, one.size_gb, one.license, one.downloads) for one in found.models]
    session.show(found, lambda: table(("id", "source", "GB", "licence", "downloads"), rows))
    for missing in () if session.as_json else found.unavailable_sources:
        session.aside.print(f"No answer from {missing.source}: {missing.reason}", markup=False)


@command(app, "show")
def show(
    session: Session,
    model_id: Annotated[str, typer.Argument(help="The model's id.", metavar="MODEL")],
    source: Annotated[ModelSource, typer.Option(help="Where it comes from.")] = ModelSource.HUGGINGFACE,
) -> None:
    """Show a base model, and what it takes to train on it."""
    found = session.client.get_model(source, model_id)
    needs = found.hardware_requirements
    told = {
        **found.model_dump(exclude={"hardware_requirements", "compatible_algorithms"}),
        "GPU memory": f"{needs.min_vram_gb:g} GB, better {needs.recommended_vram_gb:g}" if needs else None,
        "algorithms": found.compatible_algorithms,
    }
    session.show(found, lambda: facts(told))
