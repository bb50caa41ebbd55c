"""
Where adapters are published: what was asked for and what became of it, in a file beside the adapter's others.

What is asked for is written down before anybody is told so, and a note in the data directory leads to it: whoever
starts next carries on where a killed process was. One process at a time works on an adapter.
"""

import asyncio
import fcntl
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from infra.registries.parcel import Parcel, pack
from infra.registries.sending import Sender
from infra.settings import Settings
from peft_studio.adapter_folder import PUBLICATIONS
from peft_studio.adapters import Adapter
from peft_studio.events import now
from peft_studio.registries import Publication, PublicationStatus, Registry
from peft_studio.run_dir import replace_file

_LIST = TypeAdapter(list[Publication])
_LOCK, _CHANGING = ".publishing", ".publications.lock"
_LOCK_SECONDS = 0.2


def publications_of(adapter: Path) -> list[Publication]:
    """Return where the adapter in a folder is published, or is to be."""
    try:
        return _LIST.validate_json((adapter / PUBLICATIONS).read_bytes())
    except (OSError, ValidationError):
        return []


def with_publications(adapter: Adapter) -> Adapter:
    """Add to an adapter where it is published."""
    found = publications_of(Path(adapter.path).parent)
    url = next((one.url for one in found if one.url), None)
    return adapter.model_copy(update={"registries": found, "registry_url": url})


def ask_for(adapter: Adapter, registries: Iterable[Registry], settings: Settings) -> None:
    """Write down where an adapter is to be published; a place where it is already keeps saying so until it is done."""
    folder = Path(adapter.path).parent
    with _changing(folder) as publications:
        for registry in registries:
            known = publications.get(registry.place)
            if known is None or known.registry != registry or known.status is not PublicationStatus.PENDING:
                fresh = known or Publication(registry=registry, status=PublicationStatus.PENDING, at=now())
                changes = {"registry": registry, "status": PublicationStatus.PENDING, "error": None, "at": now()}
                publications[registry.place] = fresh.model_copy(update=changes)
    settings.publishing.mkdir(parents=True, exist_ok=True)
    replace_file(settings.publishing / adapter.id, adapter.model_dump_json().encode())


def asked_for(settings: Settings) -> list[Adapter]:
    """Return the adapters that somebody was publishing or was to publish."""
    found: list[Adapter] = []
    for note in sorted(settings.publishing.glob("adapter_*")):
        with suppress(OSError, ValidationError):
            found.append(Adapter.model_validate_json(note.read_bytes()))
    return found


async def carry_out(
    adapter: Adapter, sender: Sender, settings: Settings, sha256: str | None = None
) -> list[Publication]:
    """
    Publish an adapter wherever it was asked for and is not yet; return where it is published, and where it is not.

    ``sha256`` is that of its weights, where it is known. Raises ``OSError`` where the adapter is gone.
    """
    folder = Path(adapter.path).parent
    async with _alone(folder):
        while pending := [one for one in publications_of(folder) if one.status is PublicationStatus.PENDING]:
            parcel = await asyncio.to_thread(pack, adapter, sha256)
            await asyncio.gather(*(_publish(one, folder, parcel, sender) for one in pending))
            forget(adapter, settings)  # and look again: more may have been asked for before it was forgotten
    return publications_of(folder)


def forget(adapter: Adapter, settings: Settings) -> None:
    """Remove the note that leads to an adapter."""
    (settings.publishing / adapter.id).unlink(missing_ok=True)


async def _publish(wanted: Publication, folder: Path, parcel: Parcel, sender: Sender) -> None:
    answer = await sender.send(wanted.registry, parcel)
    if answer.pushed:
        changes = {**answer.pushed.model_dump(), "status": PublicationStatus.PUBLISHED, "error": None}
    else:
        changes = {"status": PublicationStatus.FAILED, "error": answer.error}
    done = wanted.model_copy(update={**changes, "at": now()})
    with _changing(folder) as publications:
        if publications.get(wanted.registry.place) == wanted:  # what was asked for again otherwise stays asked for
            publications[wanted.registry.place] = done


@contextmanager
def _changing(folder: Path) -> Generator[dict[str, Publication]]:
    """Change the file, with nobody else at it meanwhile; its entries are given by place."""
    with (folder / _CHANGING).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        publications = {one.registry.place: one for one in publications_of(folder)}
        yield publications
        replace_file(folder / PUBLICATIONS, _LIST.dump_json(list(publications.values()), indent=2))


@asynccontextmanager
async def _alone(folder: Path) -> AsyncGenerator[None]:
    """Be the only one who publishes this adapter."""
    with (folder / _LOCK).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_SECONDS)
        yield
